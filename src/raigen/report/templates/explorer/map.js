// The map: every image at its place on a canvas. What is chosen is lit, the rest fades.
function mapOn(canvas, tell) {
  const context = canvas.getContext("2d");
  const base = document.createElement("canvas");
  const small = document.createElement("canvas"); // the atlas in the size in which the map shows images: copies are fast
  const view = { x: 0.5, y: 0.5, zoom: 1 };
  const pointers = new Map();
  let lit = null; // a set of images, or null where nothing is chosen
  let dragged = null; // the corner at which a drag began, and where it is now
  let pointed = null;
  let width = 0;
  let height = 0;
  let isBaseOld = true;
  let waits = false;

  const MARGIN = 0.04;
  const across = (value) => MARGIN + value * (1 - 2 * MARGIN);
  const left = (image) => ((across(places()[2 * image] / 65535) - view.x) * view.zoom + 0.5) * width;
  const top = (image) => ((across(places()[2 * image + 1] / 65535) - view.y) * view.zoom + 0.5) * height;
  const side = () => Math.min(96, Math.max(6, 0.8 * Math.sqrt((width * height) / explorer.n) * Math.pow(view.zoom, 0.85)));
  const sizeOf = (scale) => {
    const longer = Math.max(explorer.width, explorer.height);
    return [(side() * scale * explorer.width) / longer, (side() * scale * explorer.height) / longer];
  };
  const inThousandths = (x, y) => {
    const back = (value) => Math.round((1000 * (value - MARGIN)) / (1 - 2 * MARGIN));
    return [back((x / width - 0.5) / view.zoom + view.x), back((y / height - 0.5) / view.zoom + view.y)];
  };
  const isInView = (x, y) => x > -60 && y > -60 && x < width + 60 && y < height + 60;

  function place(target, image, scale, edge) {
    const x = left(image);
    const y = top(image);
    if (!isInView(x, y)) return;
    const [w, h] = sizeOf(scale);
    if (edge) {
      target.fillStyle = edge;
      target.fillRect(x - w / 2 - 2, y - h / 2 - 2, w + 4, h + 4);
    }
    if (small.width && scale <= 1.2) {
      const [wide, high] = [small.width / explorer.columns, small.height / Math.ceil(explorer.n / explorer.columns)];
      target.drawImage(small, (image % explorer.columns) * wide, Math.floor(image / explorer.columns) * high, wide, high, x - w / 2, y - h / 2, w, h);
    } else drawImageOf(target, image, x - w / 2, y - h / 2, w, h);
  }

  function shrinkAtlas() {
    const dense = canvas.width / width;
    const [wide, high] = sizeOf(1).map((size) => Math.max(1, Math.round(size * dense)));
    small.width = small.height = 0;
    if (wide > 0.75 * explorer.width) return; // large enough to draw from the atlas itself
    small.width = wide * explorer.columns;
    small.height = high * Math.ceil(explorer.n / explorer.columns);
    const target = small.getContext("2d");
    target.imageSmoothingQuality = "high";
    target.drawImage(atlas, 0, 0, explorer.width * explorer.columns, explorer.height * Math.ceil(explorer.n / explorer.columns), 0, 0, small.width, small.height);
  }

  function drawBase() {
    shrinkAtlas();
    base.width = canvas.width;
    base.height = canvas.height;
    const target = base.getContext("2d");
    target.scale(canvas.width / width, canvas.height / height);
    for (let image = 0; image < explorer.n; image++) place(target, image, 1, null);
    isBaseOld = false;
  }

  function draw() {
    waits = false;
    if (!width || !atlas.complete) return;
    if (isBaseOld) drawBase();
    const style = getComputedStyle(canvas);
    const ember = style.getPropertyValue("--ember");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.globalAlpha = lit ? 0.22 : 1;
    context.drawImage(base, 0, 0);
    context.globalAlpha = 1;
    context.scale(canvas.width / width, canvas.height / height);
    if (lit) for (const image of lit) place(context, image, lit.size > 200 ? 1.1 : 1.5, lit.size > 200 ? null : ember);
    if (pointed !== null) place(context, pointed, Math.max(1.6, 64 / side()), ember);
    if (dragged) {
      context.strokeStyle = ember;
      context.lineWidth = 2;
      context.strokeRect(dragged.x, dragged.y, dragged.toX - dragged.x, dragged.toY - dragged.y);
    }
  }

  function again(isMoved) {
    isBaseOld = isBaseOld || isMoved;
    if (!waits) requestAnimationFrame(draw);
    waits = true;
  }

  function fit() {
    const box = canvas.getBoundingClientRect();
    if (!box.width) return;
    [width, height] = [box.width, box.height];
    const dense = Math.min(2, window.devicePixelRatio || 1);
    [canvas.width, canvas.height] = [Math.round(width * dense), Math.round(height * dense)];
    again(true);
  }

  function hold() {
    const half = 0.5 / view.zoom;
    view.x = Math.min(1 - half, Math.max(half, view.x));
    view.y = Math.min(1 - half, Math.max(half, view.y));
  }

  // Zooms by a factor around a point of the canvas.
  function zoom(factor, x = width / 2, y = height / 2) {
    const before = view.zoom;
    view.zoom = Math.min(24, Math.max(1, before * factor));
    view.x += (x / width - 0.5) * (1 / before - 1 / view.zoom);
    view.y += (y / height - 0.5) * (1 / before - 1 / view.zoom);
    hold();
    again(true);
  }

  function pan(x, y) {
    view.x -= x / width / view.zoom;
    view.y -= y / height / view.zoom;
    hold();
    again(true);
  }

  function nearest(x, y) {
    let found = null;
    let best = (side() * 0.75) ** 2;
    for (let image = 0; image < explorer.n; image++) {
      const away = (left(image) - x) ** 2 + (top(image) - y) ** 2;
      if (away <= best) [found, best] = [image, away];
    }
    return found;
  }

  function area(x, y, toX, toY) {
    const from = inThousandths(Math.min(x, toX), Math.min(y, toY));
    const to = inThousandths(Math.max(x, toX), Math.max(y, toY));
    tell.area([...from, ...to].join(","));
  }

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    const [x, y] = at(event);
    pointers.set(event.pointerId, { x, y });
    if (event.pointerType === "touch" || event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    dragged = { x, y, toX: x, toY: y, pans: event.shiftKey };
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    const before = pointers.get(event.pointerId);
    if (event.pointerType === "touch" && before && pointers.size === 2) {
      const [one, two] = [...pointers.values()];
      const gap = Math.hypot(one.x - two.x, one.y - two.y);
      pan((x - before.x) / 2, (y - before.y) / 2);
      Object.assign(before, { x, y });
      zoom(Math.hypot(one.x - two.x, one.y - two.y) / (gap || 1), (one.x + two.x) / 2, (one.y + two.y) / 2);
    } else if (dragged && dragged.pans) {
      pan(x - dragged.toX, y - dragged.toY);
      Object.assign(dragged, { toX: x, toY: y, hasMoved: true });
    } else if (dragged) {
      Object.assign(dragged, { toX: x, toY: y });
      again(false);
    } else {
      const found = nearest(x, y);
      if (found !== pointed) {
        pointed = found;
        tell.pointed(found);
        again(false);
      }
    }
  });
  canvas.addEventListener("pointerup", (event) => {
    const [x, y] = at(event);
    const began = pointers.get(event.pointerId) || { x, y };
    const drag = dragged;
    dragged = null;
    pointers.delete(event.pointerId);
    if (drag && drag.hasMoved) return;
    const isPress = Math.hypot(x - (drag || began).x, y - (drag || began).y) < 6;
    const found = isPress ? nearest(x, y) : null;
    if (isPress && found !== null) tell.open(found);
    if (!isPress && drag) area(drag.x, drag.y, x, y);
    again(false);
  });
  for (const kind of ["pointercancel", "pointerleave"]) {
    canvas.addEventListener(kind, (event) => {
      pointers.delete(event.pointerId);
      if (dragged && kind === "pointerleave") return; // captured: the drag goes on outside
      pointed = dragged = null;
      tell.pointed(null);
      again(false);
    });
  }
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return; // a plain wheel scrolls the page
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 200), ...at(event));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoom(2, ...at(event)));
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    if (steps[event.key]) pan(...steps[event.key]);
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") zoom(0);
    else if (event.key === "Enter") area(0, 0, width, height);
    else return;
    event.preventDefault();
  });
  new ResizeObserver(fit).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => again(false));
  if (!atlas.complete) atlas.addEventListener("load", () => again(true));
  fit();
  return {
    light(images) { lit = images; again(false); },
    lit: () => lit && [...lit],
    zoom, draw,
    choose: () => area(0, 0, width, height),
  };
}
