// Filter and sort the table of verdicts, and unfold claims. Nothing is lost without it: every row is there, tested
// claims first, and every claim opens by its own first line.
(() => {
  const table = document.getElementById("overview"), body = table.tBodies[0], rows = [...body.rows];
  const tools = document.getElementById("tools");
  const element = (name, properties) => Object.assign(document.createElement(name), properties);
  const labelled = (text, control) => { const label = element("label", { textContent: text }); label.append(control); return label; };
  const text = element("input", { type: "search", id: "filter-text" });
  const outcome = element("select", { id: "filter-outcome" });
  outcome.append(element("option", { value: "", textContent: "every outcome" }));
  for (const name of new Set(rows.map((row) => row.dataset.outcome))) outcome.append(element("option", { value: name, textContent: name }));
  const count = element("span", { className: "soft", id: "filter-count" });
  count.setAttribute("role", "status");
  const filter = () => {
    const wanted = text.value.trim().toLowerCase();
    for (const row of rows) {
      const said = `${row.dataset.id} ${row.textContent}`.toLowerCase();
      row.hidden = !(said.includes(wanted) && (!outcome.value || row.dataset.outcome === outcome.value));
    }
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} claims shown`;
  };
  text.addEventListener("input", filter);
  outcome.addEventListener("change", filter);
  tools.append(labelled("Find", text), labelled("Outcome", outcome), count);
  tools.hidden = false;
  const heads = [...table.querySelectorAll("th[data-sort]")];
  for (const head of heads) {
    const button = element("button", { type: "button", textContent: head.textContent });
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", next);
      const key = head.dataset.sort, sign = next === "descending" ? -1 : 1;
      const sorted = next === "none" ? rows : [...rows].sort((a, b) => sign * a.dataset[key].localeCompare(b.dataset[key]));
      body.append(...sorted);
    });
  }
  filter();
  const folded = [...document.querySelectorAll("details.folded")];
  const unfold = () => {
    const wanted = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (const one of folded) if (wanted && one.parentElement.contains(wanted)) one.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();
  if (folded.length) {
    const all = element("button", { type: "button", textContent: "Open all" });
    const told = () => { all.textContent = folded.every((one) => one.open) ? "Close all" : "Open all"; };
    all.addEventListener("click", () => { const open = !folded.every((one) => one.open); for (const one of folded) one.open = open; });
    for (const one of folded) one.addEventListener("toggle", told);
    document.getElementById("folds").append(all);
    told();
  }
})();
