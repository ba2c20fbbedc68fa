// A press on a column's head sorts the ranking by it, a second press turns the order round. The filter hides rows; what
// it left is said aloud. Both stand in the address.
function sortBy(key, isDown) {
  const head = [...document.querySelectorAll(".ranking th")].find((one) => one.dataset.key === key);
  if (!head) return;
  const body = head.closest("table").tBodies[0];
  const column = [...head.parentElement.children].indexOf(head);
  const value = (row) => row.children[column].dataset.value;
  const order = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === ""); // what was not measured stays last
    const difference = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return isDown ? -difference : difference;
  };
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", isDown ? "descending" : "ascending");
  body.append(...[...body.rows].sort(order));
}
for (const button of document.querySelectorAll(".ranking th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const isDown = head.getAttribute("aria-sort") === "ascending";
    go({ sort: head.dataset.key, down: isDown ? "1" : "" });
  });
}

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
  filter.addEventListener("input", () => {
    apply();
    goQuietly({ filter: words.value.trim(), named: named.checked ? "1" : "", measured: measured.checked ? "1" : "" });
  });
  filter.addEventListener("submit", (event) => event.preventDefault());
  onState((now) => {
    if (now.filter !== undefined || document.activeElement !== words) words.value = words.value.trim() === (now.filter || "") ? words.value : now.filter || "";
    named.checked = now.named === "1";
    measured.checked = now.measured === "1";
    apply();
    sortBy(now.sort || "rank", now.down === "1");
  });
}
