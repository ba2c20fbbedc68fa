// All audited images: their numbers, and small pictures of them in one atlas.
const island = document.getElementById("explorer-data");
const explorer = island ? JSON.parse(island.textContent) : null;
const atlas = document.getElementById("atlas");

function unpack(packed) {
  const text = atob(packed.bytes);
  const raw = new Uint8Array(text.length);
  for (let at = 0; at < raw.length; at++) raw[at] = text.charCodeAt(at);
  const kinds = { u1: Uint8Array, i1: Int8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array };
  return new kinds[packed.type](raw.buffer);
}

// Makes a number only once, when it is first needed.
function once(make) {
  let made;
  return () => (made === undefined ? (made = make()) : made);
}

const places = once(() => unpack(explorer.places));
const embedding = once(() => unpack(explorer.embedding.rows));
const hashes = once(() => unpack(explorer.hashes));
const codesOf = (finding) => finding.unpacked || (finding.unpacked = unpack(finding.codes));
const findingOf = (neuron) => explorer.findings.find((finding) => finding.neuron === neuron);
const isBlack = once(() => new Set(explorer.black));

// The neurons that fire but are not listed.
const others = once(() => {
  const found = { ...explorer.others };
  for (const name of ["neurons", "fires", "top", "strength", "peaks"]) found[name] = unpack(found[name]);
  return found;
});

function drawImageOf(context, image, x, y, width, height) {
  const column = image % explorer.columns;
  const row = Math.floor(image / explorer.columns);
  context.imageSmoothingEnabled = !(explorer.pixels && width > explorer.width);
  context.drawImage(atlas, column * explorer.width, row * explorer.height, explorer.width, explorer.height, x, y, width, height);
}

// A canvas with one image, for lists.
function smallImage(image, side) {
  const canvas = document.createElement("canvas");
  const scale = side / Math.max(explorer.width, explorer.height);
  canvas.width = Math.round(explorer.width * scale);
  canvas.height = Math.round(explorer.height * scale);
  drawImageOf(canvas.getContext("2d"), image, 0, 0, canvas.width, canvas.height);
  return canvas;
}

const seedOf = (image) => explorer.seed + image;

function commandFor(image) {
  if (!explorer.command) return "";
  const starts = explorer.batches.filter((start) => start <= image);
  const first = starts.length ? starts[starts.length - 1] : image;
  const next = explorer.batches.find((start) => start > image);
  const last = starts.length ? (next === undefined ? explorer.n : next) - 1 : image;
  const hash = [...hashes().subarray(4 * image, 4 * image + 4)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return explorer.command + " --seed " + seedOf(image) + " --together " + seedOf(first) + " " + seedOf(last) + " --sha256 " + hash;
}

// Puts an element together: its kind, its properties, and what is in it. Texts stay texts.
function element(kind, properties, ...content) {
  const made = document.createElement(kind);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "class") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...content);
  return made;
}
