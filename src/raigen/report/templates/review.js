"use strict";
{% include "download.js" %}

// One attribute at a time: first a count, then the ticks. Only attributes that were looked at in full are handed over: an
// empty box elsewhere says nothing.
const forms = [...document.querySelectorAll(".task")];
const button = document.getElementById("download");
const part = (id) => document.getElementById(id);
const undone = []; // what can be taken back: a box, and whether it was ticked before
let isSaved = true;
let at = 0;

const boxesOf = (form) => [...form.querySelectorAll(".ticks input")];
const looked = (form) => form.querySelector(".looked");
const countOf = (form) => {
  const text = form.querySelector(".counted").value;
  return text === "" ? null : Number(text);
};

function answers() {
  return forms.filter((form) => looked(form).checked).map((form) => {
    const names = (wanted) => boxesOf(form).filter((box) => box.checked === wanted).map((box) => box.name);
    return {
      neuron: Number(form.dataset.neuron), label: form.dataset.label, sha256: form.dataset.sha256,
      counted: countOf(form), shows: names(true), does_not: names(false),
    };
  });
}

function stand() {
  const done = answers().length;
  part("standing").textContent = done + " of " + forms.length + " looked at";
  part("progress").value = done;
  button.disabled = done === 0;
  forms.forEach((form, place) => {
    form.closest("section").hidden = place !== at;
    const [counted, ticked] = [countOf(form), boxesOf(form).filter((box) => box.checked).length];
    form.querySelector(".ticks").inert = counted === null;
    looked(form).disabled = counted === null;
    const differs = looked(form).checked && counted !== ticked;
    form.querySelector(".differs").textContent = differs ? "You counted " + counted + " and ticked " + ticked + ". If both are meant, leave it so." : "";
  });
  part("place").textContent = at + 1 + " of " + forms.length;
  part("previous").disabled = at === 0;
  part("next").disabled = at === forms.length - 1;
  part("undo").disabled = undone.length === 0;
}

function turn(to) {
  at = Math.min(forms.length - 1, Math.max(0, to));
  stand();
  window.scrollTo(0, part("queue").offsetTop - 16);
  forms[at].querySelector(countOf(forms[at]) === null ? ".counted" : ".ticks input").focus({ preventScroll: true });
}

function undo() {
  const last = undone.pop();
  if (!last) return;
  last.box.checked = last.was;
  const place = forms.indexOf(last.box.form);
  if (place !== at) turn(place);
  last.box.focus();
  stand();
}

// The next attribute that was not looked at, after this one or from the start.
function next() {
  const order = [...forms.keys()].map((step) => (at + 1 + step) % forms.length);
  const waiting = order.find((place) => !looked(forms[place]).checked);
  turn(waiting === undefined ? at + 1 : waiting);
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) {
    if (event.key.toLowerCase() === "z" && event.target.type !== "number") {
      event.preventDefault();
      undo();
    }
    return;
  }
  const boxes = boxesOf(forms[at]);
  const place = boxes.indexOf(document.activeElement);
  const inRow = Math.max(1, boxes.filter((box) => box.getBoundingClientRect().top === boxes[0].getBoundingClientRect().top).length);
  const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: inRow, ArrowUp: -inRow };
  const isTyping = document.activeElement.type === "number";
  if (moves[event.key] && place >= 0) boxes[Math.min(boxes.length - 1, Math.max(0, place + moves[event.key]))].focus();
  else if (event.key === "Enter" && isTyping && countOf(forms[at]) !== null) boxes[0].focus();
  else if (isTyping) return;
  else if (event.key === "u") undo();
  else if (event.key === "d" && !looked(forms[at]).disabled) looked(forms[at]).click();
  else if (event.key === "n") next();
  else if (event.key === "p") turn(at - 1);
  else return;
  event.preventDefault();
}

if (button) {
  for (const form of forms) {
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", stand);
    form.addEventListener("change", (event) => {
      if (event.target.type === "checkbox") undone.push({ box: event.target, was: !event.target.checked });
      isSaved = false;
      stand();
    });
  }
  document.addEventListener("keydown", press);
  part("previous").addEventListener("click", () => turn(at - 1));
  part("next").addEventListener("click", () => turn(at + 1));
  part("undo").addEventListener("click", undo);
  button.addEventListener("click", () => {
    download("review.json", { format: 1, reviewed: answers() });
    isSaved = true;
  });
  window.addEventListener("beforeunload", (event) => { if (!isSaved) event.preventDefault(); });
  part("queue").hidden = false;
  stand(); // a browser may restore ticks
}
