// Sorting and filtering of every table of the document that has not been started.
"use strict";
(() => {
  const STYLE = "STYLE"; // put in by tables.py

  function start(root) {
    const find = (selector) => root.querySelector(selector);
    const body = find("tbody"), rows = [...body.rows], heads = [...find("thead tr").cells];
    const [search, status, choices] = [find("input"), find("[role=status]"), [...root.querySelectorAll("select")]];

    function filter() {
      const words = search.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        const kept = row.textContent.toLowerCase().includes(words) &&
          choices.every((choice) => !choice.value || row.cells[choice.dataset.column].textContent === choice.value);
        row.hidden = !kept;
        shown += kept;
      }
      status.textContent = `showing ${shown} of ${rows.length} rows`;
    }

    // Rows that have no number stay last in both orders.
    function sort(head, column) {
      const up = head.getAttribute("aria-sort") === (head.className === "number" ? "descending" : "none");
      for (const other of heads) other.setAttribute("aria-sort", other === head ? (up ? "ascending" : "descending") : "none");
      const value = (row) => row.cells[column].textContent;
      rows.sort((a, b) => {
        if (head.className === "text") return (up ? 1 : -1) * value(a).localeCompare(value(b), undefined, { numeric: true });
        const [x, y] = [a, b].map((row) => parseFloat(value(row)));
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return (up ? 1 : -1) * (x - y);
      });
      body.append(...rows);
    }

    heads.forEach((head, column) => {
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.append(...head.childNodes);
      head.append(button);
      if (!head.hasAttribute("aria-sort")) head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sort(head, column));
    });
    for (const input of [search, ...choices]) input.addEventListener("input", filter);
    filter();
    find(".controls").hidden = false;
    root.closest(".mnemo-view")?.querySelector(":scope > .mnemo-still")?.setAttribute("hidden", "");
    root.dataset.ready = "true";
  }

  window.mnemoTable = () => {
    if (!document.querySelector("style[data-mnemo-table]")) {
      const style = Object.assign(document.createElement("style"), { textContent: STYLE });
      style.setAttribute("data-mnemo-table", "");
      document.head.append(style);
    }
    document.querySelectorAll('.mnemo-table[data-ready="false"]').forEach(start);
  };
})();
