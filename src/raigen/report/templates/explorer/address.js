"use strict";

// The address holds the state: "#neuron=1140&sort=rate". An address without "=" is a plain link to a part of the page
// and leaves the state as it is. Whoever wants to react to the state says so with `onState`.
const KEYS = ["neuron", "like", "word", "area", "image", "sort", "down", "filter", "named", "measured", "kind", "prompt", "seed"];
const listeners = [];
let state = {};

function stateOf(hash) {
  const params = new URLSearchParams(hash.slice(1));
  const found = {};
  for (const key of KEYS) if (params.get(key)) found[key] = params.get(key);
  return found;
}

function addressOf(wanted) {
  const params = new URLSearchParams();
  for (const key of KEYS) if (wanted[key] !== undefined && wanted[key] !== "") params.set(key, wanted[key]);
  return "#" + (params.toString() || "all=");
}

// Goes to the present state with some keys changed; an empty text takes a key away. The back button comes back.
function go(changes) {
  const address = addressOf({ ...state, ...changes });
  if (address !== location.hash) location.hash = address;
}

// As `go`, but without a step of its own for the back button: for what is typed.
function goQuietly(changes) {
  const address = addressOf({ ...state, ...changes });
  if (address !== location.hash) location.replace(address);
}

function onState(listener) {
  listeners.push(listener);
}

function readAddress() {
  const before = state;
  state = location.hash.includes("=") ? stateOf(location.hash) : { ...state, image: undefined };
  for (const listener of listeners) listener(state, before);
}
window.addEventListener("hashchange", readAddress);
