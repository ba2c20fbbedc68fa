// Notes on findings. The browser keeps them, under a key of this run; where it cannot, this page does until it closes.
function noteOn(run) {
  const forms = [...document.querySelectorAll("details.note")];
  const [author, button, count] = ["note-by", "note-save", "note-count"].map((id) => document.getElementById(id));
  if (!forms.length || !button) return;
  const key = "raigen-notes-" + run;
  let isKept = true;
  let isSaved = true;

  function load() {
    try {
      return JSON.parse(localStorage.getItem(key)) || {};
    } catch {
      return {};
    }
  }

  function keep(notes) {
    try {
      localStorage.setItem(key, JSON.stringify(notes));
    } catch {
      isKept = false;
    }
  }

  const boxes = (form) => [...form.querySelectorAll("input[type=checkbox]")];
  const field = (form, name) => form.querySelector("[name=" + name + "]");

  function noteIn(form) {
    return {
      neuron: Number(form.dataset.neuron), images: form.dataset.images, label: form.dataset.label, by: author.value.trim(),
      verdicts: boxes(form).filter((box) => box.checked).map((box) => box.name), name: field(form, "name").value.trim(), text: field(form, "text").value.trim(),
    };
  }

  const isNote = (note) => note.verdicts.length > 0 || note.name !== "" || note.text !== "";
  const notes = () => forms.map(noteIn).filter(isNote);

  function tell() {
    for (const form of forms) form.querySelector(".note-mark").textContent = isNote(noteIn(form)) ? "●" : "";
    const n = notes().length;
    button.disabled = n === 0 || author.value.trim() === "";
    const where = isKept ? "" : ", not kept by this browser";
    count.textContent = n ? n + (n === 1 ? " note" : " notes") + where + (author.value.trim() ? "" : "; your name is missing") : "";
  }

  function change() {
    isSaved = false;
    keep({ by: author.value, notes: notes() });
    tell();
  }

  const kept = load();
  if (typeof kept.by === "string") author.value = kept.by;
  for (const note of Array.isArray(kept.notes) ? kept.notes : []) {
    const form = note && forms.find((one) => one.dataset.images === note.images && Number(one.dataset.neuron) === note.neuron);
    if (!form) continue; // the finding is no longer listed
    for (const box of boxes(form)) box.checked = Array.isArray(note.verdicts) && note.verdicts.includes(box.name);
    field(form, "name").value = note.name || "";
    field(form, "text").value = note.text || "";
    form.open = true;
  }
  for (const form of forms) form.addEventListener("input", change);
  author.addEventListener("input", change);
  button.addEventListener("click", () => {
    download("notes.json", { format: 1, notes: notes() });
    isSaved = true;
  });
  window.addEventListener("beforeunload", (event) => { if (!isKept && !isSaved) event.preventDefault(); });
  tell();
}
