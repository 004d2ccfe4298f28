// Interaction with a circuit: choose a node or edge, filter, read out. The picture itself is already in the document.
// Starts every view of the document that has not been started, so several can share a page.
"use strict";
(() => {
  const words = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

  // On a page of views the picture is beside the view, for readers without script.
  function bring(root) {
    const beside = root.closest(".mnemo-view")?.querySelector(":scope > .mnemo-still");
    const picture = beside?.querySelector("img.still");
    if (!picture || root.querySelector(".frame").childElementCount) return;
    root.querySelector(".frame").append(picture.cloneNode());
    beside.hidden = true;
  }

  // In a notebook the picture is an image, which a notebook that is not trusted shows, too; here it becomes a part of
  // the document.
  function unpack(still) {
    const bytes = Uint8Array.from(atob(still.src.split(",")[1]), (c) => c.charCodeAt(0));
    const picture = new DOMParser().parseFromString(new TextDecoder().decode(bytes), "image/svg+xml");
    still.replaceWith(document.importNode(picture.documentElement, true));
  }

  function start(root) {
    bring(root);
    root.querySelectorAll("img.still").forEach(unpack);
    const find = (selector) => root.querySelector(selector);
    const all = (selector) => [...root.querySelectorAll(selector)];
    const picture = find("svg.mnemo-circuit");
    const edges = all("path.edge").map((line) => ({
      line, ...line.dataset, rank: Number(line.dataset.rank), words: line.querySelector("title").textContent,
    })).sort((a, b) => a.rank - b.rank);
    const nodes = all("g.node").map((box) => {
      const rect = box.querySelector(".box");
      const x = Number(rect.getAttribute("x")) + Number(rect.getAttribute("width")) / 2;
      return { box, x, name: box.dataset.node, row: Number(box.dataset.row), text: box.dataset.text };
    });
    const rows = new Map(all("tr[data-rank]").map((row) => [Number(row.dataset.rank), row]));
    const [slider, said, list, status] = [".strongest", ".said", ".readout ul", ".status"].map(find);
    const nothing = said.textContent;
    let chosen = null; // a node or an edge; null for nothing
    let shown = new Set(edges);

    const touches = (edge, thing) => (thing.line ? edge === thing : edge.from === thing.name || edge.to === thing.name);

    // Lights a node with its edges, or an edge with its ends; null lights everything.
    function light(thing) {
      picture.classList.toggle("lighting", thing !== null);
      const ends = new Set(thing === null ? [] : [thing.name]);
      for (const edge of edges) {
        const lit = thing !== null && shown.has(edge) && touches(edge, thing);
        edge.line.classList.toggle("lit", lit);
        if (lit) ends.add(edge.from).add(edge.to);
      }
      for (const node of nodes) node.box.classList.toggle("lit", ends.has(node.name));
    }

    function say() {
      list.replaceChildren();
      if (chosen === null) {
        said.textContent = nothing;
      } else if (chosen.line) {
        const rest = shown.has(chosen) ? "" : " (not shown now)";
        said.textContent = `Edge ${chosen.words}; number ${chosen.rank} of ${edges.length} by absolute score${rest}.`;
      } else {
        const mine = edges.filter((edge) => touches(edge, chosen));
        const seen = mine.filter((edge) => shown.has(edge));
        const into = seen.filter((edge) => edge.to === chosen.name).length;
        said.textContent = `${chosen.text}: ${words(into, "edge")} in, ${seen.length - into} out` +
          (seen.length < mine.length ? `, ${mine.length - seen.length} more not shown` : "") +
          (seen.length ? `. Strongest: ${seen[0].words}.` : ".");
        for (const edge of seen) {
          const button = document.createElement("button");
          button.type = "button";
          button.textContent = edge.words;
          button.setAttribute("aria-pressed", "false");
          button.addEventListener("click", () => {
            list.querySelectorAll("button").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
            light(edge);
            said.textContent = `Edge ${edge.words}; number ${edge.rank} of ${edges.length} by absolute score.`;
          });
          list.appendChild(document.createElement("li")).appendChild(button);
        }
      }
    }

    function choose(thing) {
      chosen = thing;
      for (const node of nodes) {
        node.box.classList.toggle("chosen", node === thing);
        node.box.setAttribute("aria-pressed", String(node === thing));
      }
      light(thing);
      say();
    }

    function filter() {
      const on = (kind) => new Set(all(`input[data-${kind}]:checked`).map((box) => box.dataset[kind]));
      const [reads, places] = [on("reads"), on("place")];
      const passing = edges.filter((edge) => reads.has(edge.reads) && places.has(edge.place));
      shown = new Set(passing.slice(0, Number(slider.value)));
      const busy = new Set();
      for (const edge of edges) {
        const off = !shown.has(edge);
        for (const line of [edge.line, edge.hit]) line.classList.toggle("off", off);
        rows.get(edge.rank).hidden = off;
        if (!off) busy.add(edge.from).add(edge.to);
      }
      for (const node of nodes) node.box.classList.toggle("idle", edges.length > 0 && !busy.has(node.name));
      find("output").textContent = slider.value;
      status.textContent = `showing ${shown.size} of ${words(edges.length, "edge")}` +
        (passing.length < edges.length ? ` (${passing.length} pass the filters)` : "");
      light(chosen);
      if (chosen !== null) say();
    }

    // The nearest node beside, above or below.
    function neighbour(node, key) {
      const side = { ArrowLeft: -1, ArrowRight: 1 }[key];
      if (side) {
        const row = nodes.filter((other) => other.row === node.row);
        return row[row.indexOf(node) + side];
      }
      const row = node.row + { ArrowUp: 1, ArrowDown: -1 }[key];
      const there = nodes.filter((other) => other.row === row);
      return there.sort((a, b) => Math.abs(a.x - node.x) - Math.abs(b.x - node.x))[0];
    }

    picture.setAttribute("role", "group");
    for (const edge of edges) {
      edge.hit = edge.line.cloneNode(true); // wide and unseen, so that a thin line can be pointed at
      edge.hit.setAttribute("class", "hit");
      edge.hit.setAttribute("stroke-opacity", "0");
      edge.hit.removeAttribute("stroke-dasharray");
      edge.hit.setAttribute("stroke-width", String(Number(edge.line.getAttribute("stroke-width")) + 5));
      for (const name of Object.keys(edge.hit.dataset)) delete edge.hit.dataset[name];
      edge.line.after(edge.hit);
      edge.hit.addEventListener("click", () => choose(chosen === edge ? null : edge));
      edge.hit.addEventListener("pointerenter", () => light(edge));
      edge.hit.addEventListener("pointerleave", () => light(chosen));
    }
    for (const node of nodes) {
      const set = (name, value) => node.box.setAttribute(name, value);
      set("tabindex", "0");
      set("role", "button");
      set("aria-label", node.text);
      set("aria-pressed", "false");
      node.box.addEventListener("click", () => choose(chosen === node ? null : node));
      node.box.addEventListener("pointerenter", () => light(node));
      node.box.addEventListener("pointerleave", () => light(chosen));
      node.box.addEventListener("focus", () => { if (node.box.matches(":focus-visible")) choose(node); });
      node.box.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          choose(chosen === node ? null : node);
        } else if (event.key.startsWith("Arrow")) {
          neighbour(node, event.key)?.box.focus();
        } else {
          return;
        }
        event.preventDefault();
      });
    }
    root.addEventListener("keydown", (event) => { if (event.key === "Escape") choose(null); });
    picture.addEventListener("click", (event) => { if (!event.target.closest(".node, .hit")) choose(null); });
    for (const input of all(".controls input:not(.fit)")) input.addEventListener("input", filter);
    // The whole circuit is in sight first on a phone, and where it is little wider than its frame and stays legible.
    const over = find(".frame").scrollWidth / find(".frame").clientWidth;
    if (matchMedia("(max-width: 600px)").matches || (over > 1 && over < 1.25)) {
      find(".fit").checked = true;
      root.classList.add("whole");
    }
    find(".fit").addEventListener("input", (event) => root.classList.toggle("whole", event.target.checked));
    find(".reset").addEventListener("click", () => {
      for (const box of all("input[data-reads], input[data-place]")) box.checked = true;
      slider.value = slider.max;
      filter();
      choose(null);
    });
    for (const part of all("[data-script]")) part.hidden = false;
    filter();
    // A picture that is far wider than its frame opens at its middle, where the residual stream runs.
    const frame = find(".frame");
    if (frame.scrollWidth > 2 * frame.clientWidth) frame.scrollLeft = (frame.scrollWidth - frame.clientWidth) / 2;
    root.dataset.ready = "true";
  }

  globalThis.mnemoCircuit = () => {
    for (const root of document.querySelectorAll(".mnemo-circuit-view:not([data-ready])")) {
      root.dataset.ready = "false";
      start(root);
    }
  };
  globalThis.mnemoCircuit();
})();
