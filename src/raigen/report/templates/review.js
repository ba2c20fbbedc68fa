"use strict";

// Only attributes that were looked at in full are handed over: an empty box elsewhere says nothing.
const forms = [...document.querySelectorAll(".task")];
const button = document.getElementById("download");
let isSaved = true;

function answers() {
  return forms.filter((form) => form.querySelector(".looked").checked).map((form) => {
    const boxes = [...form.querySelectorAll(".ticks input")];
    const names = (wanted) => boxes.filter((box) => box.checked === wanted).map((box) => box.name);
    return {
      neuron: Number(form.dataset.neuron), label: form.dataset.label, sha256: form.dataset.sha256,
      shows: names(true), does_not: names(false),
    };
  });
}

function stand() {
  const done = answers().length;
  document.getElementById("standing").textContent = done + " of " + forms.length + " looked at";
  button.disabled = done === 0;
}

if (button) {
  for (const form of forms) {
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", () => { isSaved = false; stand(); });
  }
  button.addEventListener("click", () => {
    const text = JSON.stringify({ format: 1, reviewed: answers() }, null, 1);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "review.json";
    link.click();
    URL.revokeObjectURL(link.href);
    isSaved = true;
  });
  window.addEventListener("beforeunload", (event) => { if (!isSaved) event.preventDefault(); });
  stand(); // a browser may restore ticks
}
