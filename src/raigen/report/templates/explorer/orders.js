// Orders of images: by the code of a neuron, by likeness to an image, by a word, or by seed.
const number = (value, digits) => value.toFixed(digits).replace("-", "\u2212");

function dot(rows, at, direction, width) {
  let sum = 0;
  for (let column = 0; column < width; column++) sum += rows[at * width + column] * direction[column];
  return sum;
}

// The cosine of each image's embedding with a direction. Embeddings are centered: 0 is what chance gives, 1 the same.
function likenessTo(direction) {
  const width = explorer.embedding.width;
  const rows = embedding();
  const length = Math.hypot(...direction) || 1;
  const found = new Float32Array(explorer.n);
  for (let image = 0; image < explorer.n; image++) {
    const own = Math.sqrt(dot(rows, image, rows.subarray(image * width), width)) || 1;
    found[image] = dot(rows, image, direction, width) / own / length;
  }
  return found;
}

// How far each image lies toward a direction, in standard deviations over all images.
function towards(direction) {
  const width = explorer.embedding.width;
  const found = Float32Array.from({ length: explorer.n }, (_, image) => dot(embedding(), image, direction, width));
  const mean = found.reduce((sum, value) => sum + value, 0) / explorer.n;
  const spread = Math.sqrt(found.reduce((sum, value) => sum + (value - mean) ** 2, 0) / explorer.n) || 1;
  return found.map((value) => (value - mean) / spread);
}

// The phrases of the vocabulary that hold a word; those that begin a word with it come first.
function phrasesWith(word) {
  const wanted = word.toLowerCase().trim();
  if (!explorer.words || !wanted) return [];
  const begins = (phrase) => phrase.toLowerCase().split(/[^\p{L}\p{N}]+/u).some((part) => part.startsWith(wanted));
  const whole = (phrase) => phrase.toLowerCase() === wanted;
  const fits = explorer.words.phrases.map((phrase, at) => at).filter((at) => explorer.words.phrases[at].toLowerCase().includes(wanted));
  const rank = (at) => (whole(explorer.words.phrases[at]) ? 0 : begins(explorer.words.phrases[at]) ? 1 : 2);
  return fits.sort((a, b) => rank(a) - rank(b) || a - b);
}

function directionOf(phrase) {
  const width = explorer.embedding.width;
  explorer.words.unpacked = explorer.words.unpacked || unpack(explorer.words.rows);
  return explorer.words.unpacked.subarray(phrase * width, (phrase + 1) * width);
}

// All images by falling value; equal ones stay in the order of their seeds.
function falling(values, text) {
  const items = Array.from(values, (value, image) => ({ image, value, text: text(value) }));
  return items.sort((a, b) => b.value - a.value || a.image - b.image);
}

function orderByFinding(finding) {
  const codes = codesOf(finding);
  const nClearly = clearlyIn(finding).length;
  const text = (code) => (code ? "activation " + number((code / 255) * finding.peak, 2) : "does not fire");
  const title = finding.rank + ". " + finding.title + " (" + (finding.family ? "family " : "neuron ") + finding.neuron + ")";
  return {
    title, items: falling(codes, text), lit: (item) => item.value > 0 && item.value >= finding.clearly, link: "#neuron-" + finding.neuron,
    says: "Fires clearly in " + nClearly.toLocaleString("en") + " of " + explorer.n.toLocaleString("en") + " images, which are lit on the map.",
  };
}

function orderByOther(neuron) {
  const all = others();
  const at = all.neurons.indexOf(neuron);
  if (at < 0) return { title: "Neuron " + neuron, items: [], says: "No neuron with this number fires in any of these images." };
  const items = [];
  for (let place = at * all.count; place < (at + 1) * all.count; place++) {
    const value = all.strength[place];
    if (value) items.push({ image: all.top[place], value, text: "activation " + number((value / 255) * all.peaks[at], 2) });
  }
  const fires = all.fires[at];
  const says = "Not listed. It fires in " + fires.toLocaleString("en") + (fires === 1 ? " image." : " images.");
  const kept = fires > items.length ? " This page keeps its " + items.length + " strongest; codes of all images are kept for listed neurons only." : "";
  return { title: "Neuron " + neuron, items, lit: () => true, says: says + kept, step: at };
}

function orderByLikeness(image) {
  const width = explorer.embedding.width;
  const values = likenessTo(embedding().slice(image * width, (image + 1) * width));
  return {
    title: "Like the image of seed " + seedOf(image), items: falling(values, (value) => "likeness " + number(value, 2)),
    lit: (item, place) => place <= 24,
    says: "By what the images mean: the cosine of their embeddings from the average of all images. 1 is the same, 0 is what chance gives. The 24 nearest are lit.",
  };
}

function orderByWord(word) {
  const phrases = phrasesWith(word);
  if (!explorer.words) return { title: "“" + word + "”", items: [], says: "This run holds no vocabulary to search with: CLIP did not name its neurons, or an earlier raigen made it." };
  if (!phrases.length) return { title: "“" + word + "”", items: [], says: "No phrase of the vocabulary holds this word. The list of the field shows what there is." };
  const phrase = explorer.words.phrases[phrases[0]];
  const rest = phrases.length - 1;
  return {
    title: "“" + phrase + "”", items: falling(towards(directionOf(phrases[0])), (value) => number(value, 1) + " sd"),
    lit: (item, place) => place < 24,
    says: "By how far each image lies toward the phrase, in standard deviations over all images, as CLIP saw it when the neurons were named. No judge looked." + (rest ? " " + rest + (rest === 1 ? " other phrase holds" : " other phrases hold") + " the word." : ""),
    neurons: neuronsToward(directionOf(phrases[0])),
  };
}

// The neurons whose strongest images lie farthest toward a direction, the first of them.
function neuronsToward(direction, count = 8) {
  const toward = towards(direction);
  const mean = (images) => images.reduce((sum, image) => sum + toward[image], 0) / Math.max(1, images.length);
  const all = others();
  const found = explorer.findings.map((finding) => ({
    neuron: finding.neuron, title: finding.rank + ". " + finding.title, value: mean(orderByFinding(finding).items.slice(0, 10).filter((item) => item.value).map((item) => item.image)),
  }));
  all.neurons.forEach((neuron, at) => {
    if (all.fires[at] < 3) return; // two images say little of a neuron
    const top = all.top.subarray(at * all.count, at * all.count + Math.min(all.count, all.fires[at]));
    found.push({ neuron, title: "neuron " + neuron, value: mean(top) });
  });
  return found.sort((a, b) => b.value - a.value).slice(0, count);
}

function orderOf(wanted) {
  const neuron = Number(wanted.neuron);
  const like = Number(wanted.like);
  if (wanted.neuron !== undefined && Number.isInteger(neuron)) {
    const finding = findingOf(neuron);
    return finding ? orderByFinding(finding) : orderByOther(neuron);
  }
  if (wanted.like !== undefined && like >= 0 && like < explorer.n) return orderByLikeness(Math.floor(like));
  if (wanted.word !== undefined) return orderByWord(wanted.word);
  return {
    title: "All images", items: Array.from({ length: explorer.n }, (_, image) => ({ image, value: 0, text: "seed " + seedOf(image) })), says: "In the order of their seeds.",
  };
}

// A part of the map, "x0,y0,x1,y1" in thousandths of its width and height; null if it is none.
function areaOf(text) {
  const sides = (text || "").split(",").map(Number);
  return sides.length === 4 && sides.every((side) => Number.isFinite(side)) ? sides : null;
}

function isWithin(image, area) {
  const x = (places()[2 * image] / 65535) * 1000;
  const y = (places()[2 * image + 1] / 65535) * 1000;
  return x >= area[0] && x <= area[2] && y >= area[1] && y <= area[3];
}
