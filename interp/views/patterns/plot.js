// circuitsvis's plots, each with its own parent, all labels, the keyboard, roles, and a read-out in words.
"use strict";
(() => {
  const { make, number, legend, colour, strip, ink, schemes, starters } = globalThis.mnemoViews;
  let made = 0;

  // circuitsvis finds its element by an id, and two plots in one parent would become one.
  function mount(root, view, ...before) {
    const place = make("div", { class: "mount", id: `mnemo-circuitsvis-${Date.now().toString(36)}-${made++}` });
    const inner = make("div", { class: "inner" }, place);
    root.append(make("p", { class: "title", text: view.title }), legend(view), ...before, make("div", { class: "plot" }, inner));
    globalThis.CircuitsVis.render(place.id, globalThis.CircuitsVis[view.component], view.props);
    return { place, inner };
  }

  async function until(found) {
    for (const end = Date.now() + 30000; Date.now() < end;) {
      if (found()) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error("circuitsvis has not drawn");
  }
  // The Chart.js object of a canvas. React keeps it in a hook of the component that made the canvas.
  function chartOf(canvas) {
    const key = Object.keys(canvas).find((name) => name.startsWith("__reactFiber$"));
    for (let fiber = canvas[key], up = 0; fiber && up < 6; fiber = fiber.return, up++) {
      for (let hook = fiber.memoizedState; hook && typeof hook === "object"; hook = hook.next) {
        const chart = hook.memoizedState?.current;
        if (chart?.canvas === canvas) return chart;
      }
    }
    return null;
  }

  // Chart.js leaves out labels that it finds too close: here every second token, all bits or all labels.
  function showAllLabels(charts, size) {
    const ticks = { autoSkip: false, font: { size } };
    // The defaults are for charts that React draws again; drawn ones have a copy of them.
    charts[0].constructor.defaults.set("scale.ticks", ticks);
    for (const chart of charts) {
      for (const scale of Object.values(chart.config.options.scales)) Object.assign(scale.ticks, ticks);
      chart.update("none");
    }
  }
  const readout = () => make("p", { class: "said", "aria-live": "polite" });

  starters.plot = async (root, view) => {
    const { tokens, attention, attentionHeadNames: heads } = view.props;
    const n = tokens.length;
    const said = readout();
    const { place, inner } = mount(root, view, said);
    place.classList.add("turned");
    // Each label has a line: of 13 pixels, or on a phone of those that fit, down to 6.
    const fitting = (place.parentElement.parentElement.clientWidth - 70) / n;
    const pixels = Math.max(6, Math.min(13, fitting));
    inner.style.minWidth = `${pixels < 13 ? pixels * n + 70 : n * 13 + 120}px`;
    const charts = () => [...place.querySelectorAll("canvas")].map((canvas) => (canvas.mnemoChart ??= chartOf(canvas)));
    await until(() => charts().length === heads.length + 1 && charts().every((chart) => chart?.scales?.x));
    showAllLabels(charts(), Math.min(10, Math.floor(pixels)));
    const big = [...place.querySelectorAll("canvas")].at(-1);
    const head = () => Math.max(0, heads.indexOf(place.querySelector("h2").textContent));
    let [dest, src] = [view.opening, 0];

    const index = (scale, pixel) => Number(scale.getLabelForValue(Math.max(0, Math.min(n - 1, scale.getValueForPixel(pixel)))).match(/\((\d+)\)$/)[1]);
    const middle = (scale, pos) => scale.getPixelForValue(scale.getLabels().findIndex((label) => label.endsWith(` (${pos})`)));
    const words = (d, s) => `${view.where ? `${view.where}, ${heads[head()]}` : heads[head()].replace("h", "H")}: from ${view.names[d]} to ${view.names[s]}: ` +
      (s > d && view.causal ? "later than its destination, which attention cannot see" : number(attention[head()][d][s])) + ` (${tokens[d]} to ${tokens[s]})`;
    const say = (d, s) => { if (said.textContent !== words(d, s)) said.textContent = words(d, s); };
    const strongest = (d) => attention[head()][d].reduce((best, value, s, row) => (value > row[best] ? s : best), 0);

    const [cell, left, below] = ["mark cell", "over", "over"].map((name) => inner.appendChild(make("div", { class: name })));
    const bands = (turn) => `linear-gradient(${turn}, ${tokens.map((_, pos) => `${colour(view, pos)} ${(pos / n) * 100}% ${((pos + 1) / n) * 100}%`).join(", ")})`;
    // Marks lie over the plot, which circuitsvis may draw again at any time.
    function follow() {
      const { chartArea: area, scales: { x, y } } = big.mnemoChart;
      const [own, at] = [inner.getBoundingClientRect(), big.getBoundingClientRect()];
      const [ox, oy] = [at.left - own.left, at.top - own.top];
      const [w, h] = [area.width / n, area.height / n];
      const set = (element, box) => Object.assign(element.style, Object.fromEntries(Object.entries(box).map(([key, value]) => [key, `${value}px`])));
      set(cell, { left: ox + middle(x, src) - w / 2, top: oy + middle(y, dest) - h / 2, width: w, height: h });
      set(left, { left: ox + area.left - 5, top: oy + area.top, width: 4, height: area.height });
      set(below, { left: ox + area.left, top: oy + area.bottom + 1, width: area.width, height: 4 });
      left.style.background = bands(middle(y, 0) < middle(y, n - 1) ? "to bottom" : "to top");
      below.style.background = bands("to right");
      const { mass } = schemes();
      line.tokens.forEach((button, pos) => {
        const rgb = mass[Math.round((attention[head()][dest][pos] / view.props.maxValue) * 255)];
        button.style.background = `rgb(${rgb.join(",")})`;
        button.style.color = ink(rgb);
      });
      line.mark(dest, src);
      say(dest, src);
    }
    function move(d, s) {
      dest = Math.max(0, Math.min(n - 1, d));
      src = Math.max(0, Math.min(view.causal ? dest : n - 1, s));
      follow();
    }
    const line = strip(view, (pos) => move(pos, strongest(pos)), (pos) => `${view.names[pos]}: ${tokens[pos]}`);
    const under = (event) => {
      const { chartArea: area, scales: { x, y } } = big.mnemoChart;
      const [px, py] = [event.offsetX, event.offsetY];
      return px < area.left || px > area.right || py < area.top || py > area.bottom ? null : [index(y, py), index(x, px)];
    };
    big.tabIndex = 0;
    big.setAttribute("role", "application");
    big.setAttribute("aria-label", "attention map: arrow keys move the cell");
    big.addEventListener("pointermove", (event) => { const at = under(event); if (at) say(...at); });
    big.addEventListener("pointerleave", () => say(dest, src));
    big.addEventListener("click", (event) => { const at = under(event); if (at) move(...at); });
    const up = () => (middle(big.mnemoChart.scales.y, 0) < middle(big.mnemoChart.scales.y, n - 1) ? -1 : 1);
    big.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [up(), 0], ArrowDown: [-up(), 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      move(dest + step[0], src + step[1]);
    });
    [...place.querySelectorAll("h4")].forEach((name, i) => {
      const button = name.parentElement.parentElement;
      for (const [key, value] of Object.entries({ role: "button", tabindex: "0", "aria-label": `show ${heads[i]}` })) button.setAttribute(key, value);
      button.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        button.click();
      });
    });
    // The chosen head, by pointer or keyboard, is told by circuitsvis's own heading.
    new MutationObserver(follow).observe(place.querySelector("h2"), { characterData: true, childList: true, subtree: true });
    root.append(make("p", { class: "hint", text: "Tokens, shaded by the weight from the chosen destination; choose another:" }), line.element,
      make("p", { class: "note", text: "circuitsvis, with all labels, roles and keyboard added. Weights are rounded to 0.0001." }));
    src = strongest(dest);
    follow();
    new ResizeObserver(() => setTimeout(follow, 60)).observe(root);
  };

  starters.row = async (root, view) => {
    const said = readout();
    const words = (pos) => `${view.from ? `from ${view.from} to ` : ""}${view.names[pos]}: ${view.signed && view.values[pos] > 0 ? "+" : ""}${number(view.values[pos])} (${view.tokens[pos]})`;
    const { place } = mount(root, view);
    const spans = () => [...place.querySelectorAll(".colored-tokens > span > span")];
    await until(() => spans().length === view.tokens.length);
    let chosen = view.values.reduce((best, value, pos, all) => (Math.abs(value) > Math.abs(all[best]) ? pos : best), 0);
    function choose(pos) {
      chosen = pos;
      spans().forEach((span, i) => {
        span.tabIndex = i === pos ? 0 : -1;
        span.style.outline = i === pos ? "2px solid var(--mark)" : "";
      });
      said.textContent = words(pos);
    }
    spans().forEach((span, pos) => {
      span.style.boxShadow = `0 4px 0 ${colour(view, pos)}`;
      span.setAttribute("role", "button");
      span.setAttribute("aria-label", words(pos));
      span.addEventListener("pointerenter", () => { said.textContent = words(pos); });
      span.addEventListener("pointerleave", () => { said.textContent = words(chosen); });
      span.addEventListener("click", () => choose(pos));
      span.addEventListener("keydown", (event) => {
        const to = { ArrowRight: pos + 1, ArrowLeft: pos - 1, Home: 0, End: spans().length - 1 }[event.key];
        if (event.key === "Enter" || event.key === " ") choose(pos);
        else if (spans()[to]) { choose(to); spans()[to].focus(); }
        else return;
        event.preventDefault();
      });
    });
    root.append(said, make("p", { class: "note", text: view.note }));
    choose(chosen);
  };
})();
