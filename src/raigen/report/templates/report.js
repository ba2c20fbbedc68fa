"use strict";

// The slider fades every overlay of the page.
const slider = document.getElementById("overlay");
const shown = document.getElementById("overlay-value");
function fade() {
  document.documentElement.style.setProperty("--overlay", String(slider.value / 100));
  shown.textContent = slider.value + " %";
  slider.setAttribute("aria-valuetext", slider.value + " percent");
}
if (slider) {
  slider.addEventListener("input", fade);
  fade(); // a browser may restore an earlier position
}

// A press on a column's head sorts the table by it; a second press turns the order round.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const column = [...head.parentElement.children].indexOf(head);
    const down = head.getAttribute("aria-sort") === "ascending";
    const value = (row) => row.children[column].dataset.value;
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === ""); // what was not measured stays last
      const difference = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return down ? -difference : difference;
    };
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...[...body.rows].sort(order));
  });
}

// The filter hides rows of the ranking; what it left is said aloud.
const filter = document.querySelector(".filter");
if (filter) {
  const rows = [...document.querySelectorAll(".ranking tbody tr")];
  const [words, named, measured] = ["filter", "only-named", "only-measured"].map((id) => document.getElementById(id));
  const apply = () => {
    const wanted = words.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const text = row.dataset.words.toLowerCase();
      const fits = wanted.every((word) => text.includes(word));
      row.hidden = !fits || (named.checked && row.dataset.named === "0") || (measured.checked && row.dataset.measured === "0");
    }
    const left = rows.filter((row) => !row.hidden).length;
    document.getElementById("filter-count").textContent = left + " of " + rows.length + (rows.length === 1 ? " row" : " rows");
  };
  filter.addEventListener("input", apply);
  filter.addEventListener("submit", (event) => event.preventDefault());
  apply(); // a browser may restore what was typed
}
