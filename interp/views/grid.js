// Draws every heat map of the document that has not been drawn, with whole device pixels per cell, and writes the
// value of the cell under the pointer or the keyboard's cursor in words.
"use strict";
(() => {
  const STYLE = "STYLE", COLOURS = "STOPS"; // put in by grid.py
  const STRIP = 6, NAMED = 11, CELL = [34, 24], NOTED = 64, HIGH = 820, LEAST = 3, SIDE = 8192, EDGE = 12;
  const FONT = 'system-ui, "Segoe UI", Helvetica, Arial, sans-serif';
  const dark = matchMedia("screen and (prefers-color-scheme: dark)");

  const make = (name, parent, properties = {}, attributes = {}) => {
    const element = Object.assign(document.createElement(name), properties);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    parent?.append(element);
    return element;
  };

  const words = (value, scale) => Number.isNaN(value) ? "not measured"
    : (scale === "diverging" && value > 0 ? "+" : "") + String(Number(value.toPrecision(3)));

  async function unpack(panel) {
    const bytes = Uint8Array.from(atob(panel.values), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const view = new DataView(await new Response(stream).arrayBuffer());
    return Float32Array.from({ length: view.byteLength / 2 }, (_, k) => {
      const half = view.getUint16(2 * k, true), power = (half >> 10) & 31, rest = half & 1023;
      const size = power === 31 ? NaN : power ? 2 ** (power - 15) * (1 + rest / 1024) : 2 ** -14 * (rest / 1024);
      return (half >> 15 ? -size : size) * panel.peak;
    });
  }

  // 511 colours, so that zero of a diverging scale is exactly the middle one.
  function table(stops) {
    const parts = stops.map((stop) => [1, 3, 5].map((k) => parseInt(stop.slice(k, k + 2), 16)));
    return Array.from({ length: 511 }, (_, k) => {
      const at = (k / 510) * (parts.length - 1), low = Math.min(Math.floor(at), parts.length - 2);
      return parts[low].map((value, c) => Math.round(value + (parts[low + 1][c] - value) * (at - low)));
    });
  }

  async function start(root) {
    const data = JSON.parse(root.querySelector("script").textContent);
    for (const panel of data.panels) panel.numbers = await unpack(panel);
    const axisOf = (which) => data.axes[data.panels[chosen][which]];
    let chosen = data.first, zoom = 0, outlined = true, at = null, cell = [1, 1], ratio = 1, wide = 0;

    root.append(make("p", null, { className: "title", textContent: data.title }));
    const controls = make("div", root, { className: "controls" });
    let select = null;
    if (data.panels.length > 1) {
      select = make("select", make("label", controls, { textContent: "map " }), {}, { autocomplete: "off" });
      data.panels.forEach((panel, k) => make("option", select, { value: k, textContent: panel.name, selected: k === chosen }));
      select.addEventListener("change", () => { chosen = Number(select.value); at = null; draw(); list(); say(); });
    }
    const button = (text, name, work) => make("button", controls, { type: "button", textContent: text, onclick: work }, { "aria-label": name });
    button("\u2212", "smaller cells", () => { zoom = Math.max(zoom - 1, -6); draw(); if (at) show(...at); });
    button("+", "larger cells", () => { zoom = Math.min(zoom + 1, 6); draw(); if (at) show(...at); });
    if (data.outlines.length) {
      const box = make("input", make("label", controls), { type: "checkbox", checked: true }, { autocomplete: "off" });
      box.after(" outlines");
      box.addEventListener("change", () => { outlined = box.checked; draw(); });
    }
    const frame = make("div", root, { className: "frame" });
    const sheet = make("div", frame, { className: "sheet" });
    const side = make("canvas", sheet, { className: "side" }, { "aria-hidden": "true" });
    const stage = make("div", sheet, { className: "stage", tabIndex: 0 }, {
      role: "application", "aria-roledescription": "heat map",
      "aria-label": `${root.getAttribute("aria-label")} Arrow keys move from cell to cell.`,
    });
    root.removeAttribute("aria-label");
    const map = make("canvas", stage, { className: "map" }, { "aria-hidden": "true" });
    const [across, down, cursor] = ["across", "down", "cursor"].map((name) => make("div", stage, { className: name, hidden: true }));
    const readout = make("p", root, { className: "readout" }, { "aria-live": "polite" });
    const legend = make("div", root, { className: "legend" });
    make("p", root, { className: "caption", textContent: data.caption });
    const details = make("details", root);
    make("summary", details, { textContent: "The strongest cells" });
    const strongest = make("ol", details);

    const said = (axis, k) => axis.names[k] + (axis.tokens.length ? ` (${axis.tokens[k]})` : "");
    const value = (row, column) => data.panels[chosen].numbers[row * axisOf("columns").names.length + column];
    const inWords = (row, column) => `${data.phrase.replace("{row}", () => said(axisOf("rows"), row))
      .replace("{column}", () => said(axisOf("columns"), column))}: ${words(value(row, column), data.panels[chosen].scale)}` +
      (data.panels[chosen].notes.length ? ` (${data.panels[chosen].notes[row][column]})` : "");

    function say() {
      for (const part of [across, down, cursor]) part.hidden = at === null;
      if (at === null) {
        readout.textContent = "Point at a cell, or press Tab and the arrow keys, to read its value.";
        return;
      }
      const [row, column] = at, [w, h] = cell.map((size) => size / ratio);
      const place = (part, x, y, width, height) =>
        Object.assign(part.style, { left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px` });
      place(cursor, column * w, row * h, w, h);
      place(across, 0, row * h, axisOf("columns").names.length * w, h);
      place(down, column * w, 0, w, axisOf("rows").names.length * h);
      const marks = outlined ? data.outlines.filter((o) => o.cells.some(([r, c]) => r === row && c === column)) : [];
      readout.textContent = inWords(row, column) + (data.panels[chosen].unit ? ` (${data.panels[chosen].unit})` : "") +
        marks.map((mark) => `; outlined: ${mark.name}`).join("");
    }

    function list() {
      strongest.replaceChildren();
      for (const [row, column] of data.panels[chosen].strongest) {
        make("button", make("li", strongest), { type: "button", textContent: inWords(row, column), onclick: () => show(row, column) });
      }
    }

    // Moves the cursor, and the frame if it is outside.
    function show(row, column) {
      at = [row, column];
      say();
      const x = (column * cell[0]) / ratio, free = frame.clientWidth - side.offsetWidth;
      if (x < frame.scrollLeft) frame.scrollLeft = x - 20;
      if (x + cell[0] / ratio > frame.scrollLeft + free) frame.scrollLeft = x - free + 40;
    }

    // Inside the cell, lest it hide a neighbour: a frame, and where that would leave nothing of the cell, its two ends.
    function mark(pen, x, y, w, h) {
      const thick = Math.max(1, Math.min(Math.round(2 * ratio), Math.floor(Math.max(w, h) / 6)));
      const [sides, ends] = [w >= h || w >= 10 * ratio, h > w || h >= 10 * ratio];
      if (sides) for (const at of [x, x + w - thick]) pen.fillRect(at, y, thick, h);
      if (ends) for (const at of [y, y + h - thick]) pen.fillRect(x, at, w, thick);
    }

    const namesOf = (axis) => axis.names.map((name, k) => (axis.tokens.length ? `${axis.tokens[k]}  ${name}` : name));

    // Whether names fit, and the room that they or the sections need, in CSS pixels.
    function room(axis, size, pen) {
      const named = size / ratio >= NAMED || !axis.groups.length;
      const strip = axis.groups.length ? STRIP + 4 : 4;
      pen.font = `11px ${FONT}`;
      const texts = named ? namesOf(axis) : axis.sections.map((section) => section[2]);
      const most = texts.reduce((found, text) => Math.max(found, pen.measureText(text).width), 0);
      return { named, strip, most: Math.ceil(strip + 6 + most + (named ? 0 : 20)) };
    }

    // Names, or sections and steps: left of the map (upright) or below it.
    function label(pen, axis, size, off, wanted, upright) {
      const step = size / ratio;
      pen.textBaseline = "middle";
      axis.groups.forEach((group, k) => {
        if (!group) return;
        pen.fillStyle = data.colours[group];
        pen.fillRect(...(upright ? [off - STRIP - 2, k * step, STRIP, step] : [k * step, off + 2, step, STRIP]));
      });
      pen.fillStyle = getComputedStyle(root).color;
      const write = (along, away, text, turned, align) => {
        pen.save();
        pen.textAlign = align;
        pen.translate(...(upright ? [off - away, along] : [along, off + away]));
        if (turned) pen.rotate(-Math.PI / 2);
        pen.fillText(text, 0, 0);
        pen.restore();
      };
      if (wanted.named) {
        const every = Math.ceil(NAMED / step);
        namesOf(axis).forEach((name, k) => { if (k % every === 0) write((k + 0.5) * step, wanted.strip + 3, name, !upright, "right"); });
        return;
      }
      let end = -Infinity; // numbers must not run into each other
      for (const [k, text] of axis.ticks) {
        const middle = (k + 0.5) * step, half = (upright ? 11 : pen.measureText(text).width + 4) / 2;
        if (middle - half < end) continue;
        write(middle, wanted.strip + (upright ? 3 : 8), text, false, upright ? "right" : "center");
        end = middle + half;
      }
      for (const [first, last, name] of axis.sections) {
        if ((last - first) * step < (upright ? NAMED : pen.measureText(name).width)) continue;
        write(((first + last) / 2) * step, wanted.strip + (upright ? 21 : 23), name, false, upright ? "right" : "center");
      }
    }

    // The cells' notes, cut to a cell's width, in the ink that is legible on its colour.
    function note(pen, panel, w, h, colours) {
      if (!panel.notes.length || w < 20 || h < NAMED) return;
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      panel.notes.forEach((row, i) => row.forEach((text, j) => {
        const number = panel.numbers[i * row.length + j] / panel.limit;
        const share = panel.scale === "diverging" ? 0.5 + number / 2 : number;
        const [r, g, b] = colours[Math.round(Math.min(1, Math.max(0, share || 0)) * 510)];
        pen.fillStyle = 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#15181c" : "#ffffff";
        const most = Math.floor((w - 4) / 6);
        pen.fillText(text.length <= most ? text : `${text.slice(0, most - 1)}\u2026`, (j + 0.5) * w, (i + 0.5) * h);
      }));
    }

    function draw() {
      const panel = data.panels[chosen], [rows, columns] = ["rows", "columns"].map(axisOf);
      const [high, long] = [rows.names.length, columns.names.length];
      ratio = devicePixelRatio || 1;
      const pen = map.getContext("2d"), beside = side.getContext("2d");
      const tall = Math.max(1, Math.min(CELL[1] * ratio, Math.floor((HIGH * ratio) / high)));
      const left = room(rows, tall * 1.4 ** zoom, beside);
      const free = (frame.clientWidth - left.most - EDGE) * ratio;
      const fit = Math.max(Math.round(LEAST * ratio), Math.min((panel.notes.length ? NOTED : CELL[0]) * ratio, Math.floor(free / long)));
      cell = [[fit, long], [tall, high]].map(([size, n]) => Math.max(1, Math.min(Math.round(size * 1.4 ** zoom), Math.floor(SIDE / n))));
      const [w, h] = cell, below = room(columns, w, pen);
      const shape = (canvas, width, height) => {
        [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
        Object.assign(canvas.style, { width: `${canvas.width / ratio}px`, height: `${canvas.height / ratio}px` });
      };
      const foot = below.named ? below.most : below.strip + 32;
      shape(map, (long * w) / ratio + EDGE, (high * h) / ratio + foot);
      shape(side, left.most, (high * h) / ratio + foot);

      const stops = COLOURS[dark.matches ? "dark" : "light"][panel.scale], colours = table(stops);
      const small = make("canvas", null, { width: long, height: high }), image = new ImageData(long, high);
      const missing = [];
      panel.numbers.forEach((number, k) => {
        if (Number.isNaN(number)) { missing.push(k); return; }
        const share = panel.scale === "diverging" ? 0.5 + number / panel.limit / 2 : number / panel.limit;
        image.data.set([...colours[Math.round(Math.min(1, Math.max(0, share)) * 510)], 255], 4 * k);
      });
      small.getContext("2d").putImageData(image, 0, 0);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(small, 0, 0, long * w, high * h);
      if (missing.length) {
        const tile = make("canvas", null, { width: 5, height: 5 }), tip = tile.getContext("2d");
        tip.strokeStyle = "#8b93a0";
        for (const shift of [-5, 0, 5]) { tip.moveTo(shift - 1, 6); tip.lineTo(shift + 6, -1); }
        tip.stroke();
        pen.fillStyle = pen.createPattern(tile, "repeat");
        for (const k of missing) pen.fillRect((k % long) * w, Math.floor(k / long) * h, w, h);
      }
      pen.strokeStyle = "#8b93a0";
      pen.strokeRect(0.5, 0.5, long * w - 1, high * h - 1);
      for (const outline of outlined ? data.outlines : []) {
        pen.fillStyle = outline.colour;
        for (const [row, column] of outline.cells) mark(pen, column * w, row * h, w, h);
      }
      for (const part of [pen, beside]) { part.scale(ratio, ratio); part.font = `11px ${FONT}`; }
      note(pen, panel, w / ratio, h / ratio, colours);
      label(beside, rows, h, left.most, left, true);
      label(pen, columns, w, (high * h) / ratio, below, false);
      Object.assign(map.dataset, { cell: `${w} ${h}`, rows: high, columns: long });
      keys(panel, stops, rows, columns);
      say();
    }

    function keys(panel, stops, rows, columns) {
      legend.replaceChildren();
      const bar = make("span", legend, { className: "bar" });
      const low = panel.scale === "diverging" ? -panel.limit : 0;
      make("span", bar, { textContent: Number(low.toPrecision(3)) });
      make("i", bar, {}, { style: `background:linear-gradient(to right, ${stops.join(", ")})` });
      make("span", bar, { textContent: `${Number(panel.limit.toPrecision(3))} ${panel.unit}` });
      const key = (style, text) => { const one = make("span", legend); make("b", one, {}, { style }); one.append(text); };
      const groups = new Set([...rows.groups, ...columns.groups].filter(Boolean));
      for (const group of groups) key(`background:${data.colours[group]}`, group);
      for (const outline of data.outlines) key(`border:2px solid ${outline.colour}`, outline.name);
      if (panel.numbers.some(Number.isNaN)) key("background:repeating-linear-gradient(135deg,#8b93a0 0 1px,transparent 1px 4px)", "not measured");
      legend.append(`columns: ${columns.title}, rows: ${rows.title}`);
    }

    function point(event) {
      const box = map.getBoundingClientRect();
      const [column, row] = [event.clientX - box.left, event.clientY - box.top].map((x, k) => Math.floor((x * ratio) / cell[k]));
      if (row < 0 || column < 0 || row >= axisOf("rows").names.length || column >= axisOf("columns").names.length) return;
      at = [row, column];
      say();
    }

    const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], PageUp: [-10, 0],
      PageDown: [10, 0], Home: [0, -Infinity], End: [0, Infinity] };
    stage.addEventListener("keydown", (event) => {
      const move = MOVES[event.key];
      if (!move || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const from = at ?? [0, 0], most = ["rows", "columns"].map((which) => axisOf(which).names.length - 1);
      show(...from.map((k, i) => Math.max(0, Math.min(most[i], at === null ? k : k + move[i]))));
    });
    stage.addEventListener("pointermove", point);
    stage.addEventListener("pointerdown", point);
    dark.addEventListener("change", draw);
    root.hidden = false;
    root.closest(".mnemo-view")?.querySelector(":scope > .mnemo-still")?.setAttribute("hidden", "");
    new ResizeObserver(() => {
      if (frame.clientWidth && frame.clientWidth !== wide) { wide = frame.clientWidth; draw(); }
    }).observe(frame);
    wide = frame.clientWidth;
    draw();
    list();
    root.dataset.ready = "true";
  }

  window.mnemoGrid = () => {
    if (!document.querySelector("style[data-mnemo-grid]")) make("style", document.head, { textContent: STYLE }, { "data-mnemo-grid": "" });
    for (const root of document.querySelectorAll('.mnemo-grid[data-ready="false"]')) {
      root.dataset.ready = "drawing";
      // An old browser cannot unpack: the still picture stays.
      start(root).catch((error) => { root.hidden = true; root.dataset.ready = "failed"; console.error(error); });
    }
  };
})();
