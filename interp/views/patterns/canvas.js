// Where did each head look? All heads as small maps and one large, with a read-out in words. A cell is never dropped:
// it has a pixel or more, or is in the largest of a block of cells.
"use strict";
(() => {
  const { make, number, legend, colour, strip, ink, schemes, starters } = globalThis.mnemoViews;

  async function unpack(view, n) {
    const bytes = Uint8Array.from(atob(view.data), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const raw = new Uint8Array(await new Response(stream).arrayBuffer());
    const count = view.bits === 16 ? raw.length / 2 : raw.length;
    const weights = new Float32Array(count);
    if (view.bits === 16) for (let i = 0; i < count; i++) weights[i] = ((raw[i] * 256 + raw[count + i]) / 65535) * view.limit;
    else for (let i = 0; i < count; i++) weights[i] = (raw[i] / 255) ** 2 * view.limit;
    const each = view.causal ? (n * (n + 1)) / 2 : n * n;
    return (block, dest, src) => (!view.causal ? weights[block * each + dest * n + src]
      : src > dest ? 0 : weights[block * each + (dest * (dest + 1)) / 2 + src]);
  }

  starters.canvas = async (root, view) => {
    const n = view.tokens.length;
    const weight = await unpack(view, n);
    const compared = view.conditions.length === 2;
    const kinds = compared ? [...view.conditions, "difference"] : [""];
    const [L, H] = [view.layers.length, view.heads.length];
    const named = (l, h) => (view.layers[l] === "" ? "Head" : `Layer ${view.layers[l]}, head`) + ` ${view.heads[h]}`;
    function at(kind, layer, head, dest, src) {
      if (kind < 2) return weight((kind * L + layer) * H + head, dest, src);
      const change = weight(layer * H + head, dest, src) - weight((L + layer) * H + head, dest, src);
      return Math.abs(change) > 2 * view.error ? change : 0; // less may be of storing them
    }
    let [layer, head, dest, src] = [0, 0, view.opening, 0];
    let [scheme, faint] = [schemes(), false];
    let widest = 0;
    if (compared) for (let l = 0; l < L; l++) for (let h = 0; h < H; h++) for (let d = 0; d < n; d++) for (let s = 0; s < n; s++) {
      const change = Math.abs(at(2, l, h, d, s));
      if (change > widest) [widest, layer, head, dest] = [change, l, h, d]; // opens at the largest difference
    }
    const limits = [view.limit, view.limit, widest || 1];

    function paint(kind, value) {
      let share = Math.min(1, Math.abs(value) / limits[kind]);
      if (faint) share = Math.sqrt(share);
      return kind === 2 ? scheme.signed[Math.round((value < 0 ? 1 - share : 1 + share) * 127.5)] : scheme.mass[Math.round(share * 255)];
    }

    // A map of k x k cells a pixel, the one farthest from zero; one putImageData.
    function draw(canvas, kind, l, h, k) {
      const size = Math.ceil(n / k);
      canvas.width = canvas.height = size;
      const image = new ImageData(size, size);
      for (let y = 0; y < size; y++) for (let x = 0; x < size; x++) {
        let best = 0;
        for (let d = y * k; d < Math.min(n, (y + 1) * k); d++) for (let s = x * k; s < Math.min(n, (x + 1) * k); s++) {
          const value = at(kind, l, h, d, s);
          if (Math.abs(value) > Math.abs(best)) best = value;
        }
        const rgb = view.causal && x > y ? scheme.empty : paint(kind, best);
        image.data.set([...rgb, 255], (y * size + x) * 4);
      }
      canvas.getContext("2d").putImageData(image, 0, 0);
    }

    // Zoomed out, a pixel of the page is less than one of the screen.
    const unit = Math.max(1, 1 / devicePixelRatio);
    const target = L * H * kinds.length > 24 ? 84 : 124;
    const k = Math.ceil(n / target);
    const side = Math.ceil(n / k) * Math.max(1, Math.floor(target / Math.ceil(n / k))) * unit;
    const small = [];
    const rows = [];
    for (let l = 0; l < L; l++) kinds.forEach((kind, c) => {
      const line = make("div", { class: "heads" });
      const words = [L > 1 || compared ? `layer ${view.layers[l]}` : "", kind].filter(Boolean).join(", ");
      for (let h = 0; h < H; h++) {
        const canvas = make("canvas", { class: "small" });
        canvas.style.width = canvas.style.height = `${side}px`;
        const value = make("span", { class: "value" });
        const name = make("span", { class: "name" }, make("b", { text: `H${view.heads[h]}` }), " ", value);
        const button = make("button", { type: "button", class: "head" }, name, canvas);
        button.addEventListener("click", () => choose(l, h));
        line.append(button);
        small.push({ l, h, c, canvas, value, button });
      }
      rows.push(make("div", { class: "row" }, ...(words ? [make("p", { class: "rowname", text: words })] : []), line));
    });

    const large = kinds.map((kind, c) => {
      const canvas = make("canvas", { class: "large" });
      const marks = ["across", "down", "cell"].map((name) => make("div", { class: `mark ${name}` }));
      const field = make("div", { class: "field", tabindex: "0", role: "application", "aria-roledescription": "attention map",
        "aria-label": `${kind || "attention"}: arrow keys move the cell, Page Up and Page Down change the head` }, canvas, ...marks);
      const [left, below] = [make("canvas", { class: "roles" }), make("canvas", { class: "roles" })];
      const box = make("figure", { class: "map" }, make("figcaption", { text: kind }), make("div", { class: "axes" },
        make("span", { class: "from", text: "from (destination) \u2192" }), left, field, make("span"), make("span"), below,
        make("span"), make("span"), make("span", { class: "to", text: "to (source) \u2192" })));
      const cell = (event) => {
        const area = canvas.getBoundingClientRect();
        const index = (x, size) => Math.max(0, Math.min(n - 1, Math.floor((x / size) * n)));
        return [index(event.clientY - area.top, area.height), index(event.clientX - area.left, area.width)];
      };
      field.addEventListener("pointermove", (event) => say(...cell(event)));
      field.addEventListener("pointerleave", () => say(dest, src));
      field.addEventListener("click", (event) => move(...cell(event)));
      field.addEventListener("keydown", (event) => {
        const by = event.shiftKey ? 10 : 1;
        const steps = { ArrowUp: [-by, 0], ArrowDown: [by, 0], ArrowLeft: [0, -by], ArrowRight: [0, by], Home: [0, -n], End: [0, n] };
        const turn = { PageUp: -1, PageDown: 1 }[event.key];
        if (steps[event.key]) move(dest + steps[event.key][0], src + steps[event.key][1]);
        else if (turn) {
          const next = (layer * H + head + turn + L * H) % (L * H);
          choose(Math.floor(next / H), next % H);
        } else return;
        event.preventDefault();
      });
      return { c, box, canvas, marks, left, below };
    });
    const said = make("p", { class: "said", "aria-live": "polite" });
    const scale = make("div", { class: "scales" });
    const line = strip(view, (pos) => move(pos, strongest(pos)), (pos) => `${view.names[pos]}: ${view.tokens[pos]}`);

    const words = (d, s) => {
      const values = kinds.map((_, c) => at(c, layer, head, d, s));
      const where = `${named(layer, head)}: from ${view.names[d]} to ${view.names[s]}: `;
      const what = view.causal && s > d ? "later than its destination, which attention cannot see"
        : compared ? `${number(values[0])} in ${kinds[0]}, ${number(values[1])} in ${kinds[1]}, difference ${values[2] > 0 ? "+" : ""}${number(values[2])}`
          : number(values[0]);
      return `${where}${what} (${view.tokens[d]} to ${view.tokens[s]})`;
    };
    function say(d, s) {
      const text = words(d, s);
      if (said.textContent !== text) said.textContent = text;
    }
    function strongest(d) {
      let best = 0;
      const size = (s) => Math.abs(at(compared ? 2 : 0, layer, head, d, s));
      for (let s = 1; s < n; s++) if (size(s) > size(best)) best = s;
      return best;
    }
    function move(d, s) {
      dest = Math.max(0, Math.min(n - 1, d));
      src = Math.max(0, Math.min(view.causal ? dest : n - 1, s));
      follow();
    }
    function choose(l, h) {
      [layer, head] = [l, h];
      for (const map of large) draw(map.canvas, map.c, layer, head, 1);
      for (const one of small) one.button.setAttribute("aria-pressed", String(one.l === l && one.h === h));
      large.forEach((map, c) => { map.box.firstChild.textContent = `${named(l, h)}${kinds[c] ? `: ${kinds[c]}` : ""}`; });
      follow();
    }
    // Everything that depends on the chosen cell.
    function follow() {
      const share = 100 / n;
      for (const { marks: [across, down, cell] } of large) {
        Object.assign(across.style, { top: `${dest * share}%`, height: `${share}%` });
        Object.assign(down.style, { left: `${src * share}%`, width: `${share}%` });
        Object.assign(cell.style, { top: `${dest * share}%`, left: `${src * share}%`, height: `${share}%`, width: `${share}%` });
      }
      for (const one of small) {
        const value = at(one.c, one.l, one.h, dest, src);
        one.value.textContent = number(value);
        one.button.setAttribute("aria-label", `${named(one.l, one.h).toLowerCase()} ${kinds[one.c]}, ${number(value)} at the chosen cell`);
      }
      line.tokens.forEach((button, pos) => {
        const rgb = paint(compared ? 2 : 0, at(compared ? 2 : 0, layer, head, dest, pos));
        button.style.background = `rgb(${rgb.join(",")})`;
        button.style.color = ink(rgb);
      });
      line.mark(dest, src);
      say(dest, src);
    }
    function roles(canvas, upright, size, room) {
      const dpr = Math.max(1, devicePixelRatio);
      const [w, h] = upright ? [room, size] : [size, room];
      Object.assign(canvas.style, { width: `${w}px`, height: `${h}px` });
      [canvas.width, canvas.height] = [w * dpr, h * dpr];
      const pen = canvas.getContext("2d");
      pen.scale(dpr, dpr);
      const each = size / n;
      pen.font = "10px system-ui, sans-serif";
      pen.textBaseline = "middle";
      for (let pos = 0; pos < n; pos++) {
        pen.fillStyle = colour(view, pos);
        if (upright) pen.fillRect(room - 8, pos * each, 7, each);
        else pen.fillRect(pos * each, 1, each, 7);
        if (room < 20) continue;
        pen.save();
        pen.fillStyle = getComputedStyle(root).color;
        if (upright) pen.translate(room - 11, (pos + 0.5) * each);
        else { pen.translate((pos + 0.5) * each, 11); pen.rotate(-Math.PI / 2); }
        pen.textAlign = "right";
        pen.fillText(view.tokens[pos], 0, 0, 44);
        pen.restore();
      }
    }
    // As large as there is room for, in whole pixels a cell; names stand at the cells where they fit.
    function fit() {
      const across = Math.max(200, root.clientWidth - 60);
      const share = compared ? Math.max(across / 3 - 40, Math.min(across, 300)) : Math.min(across, 760);
      const each = Math.max(1, Math.min(18, Math.floor(share / n))) * unit;
      const room = each >= 10 ? 54 : 9;
      for (const map of large) {
        map.canvas.style.width = map.canvas.style.height = `${each * n}px`;
        roles(map.left, true, each * n, room);
        roles(map.below, false, each * n, room);
      }
    }
    function bars() {
      const bar = (kind, low, high) => {
        const canvas = make("canvas", { class: "bar", width: 128, height: 1 });
        const image = new ImageData(128, 1);
        for (let i = 0; i < 128; i++) image.data.set([...paint(kind, (kind === 2 ? i / 63.5 - 1 : i / 127) * limits[kind]), 255], i * 4);
        canvas.getContext("2d").putImageData(image, 0, 0);
        return make("span", {}, low, canvas, high);
      };
      scale.replaceChildren(bar(0, "0 ", ` ${number(limits[0])}`));
      if (compared) scale.append(bar(2, `difference \u2212${number(limits[2])} `, ` +${number(limits[2])}`));
    }
    function redraw() {
      scheme = schemes();
      for (const one of small) draw(one.canvas, one.c, one.l, one.h, k);
      bars();
      choose(layer, head);
      fit();
    }

    const check = make("input", { type: "checkbox", autocomplete: "off" });
    check.addEventListener("input", () => { faint = check.checked; redraw(); });
    const note = `Drawn by mnemoscope\u2019s own viewer${view.why ? `, not circuitsvis: ${view.why}` : ""}. ` +
      `Weights are stored in ${view.bits} bits, within ${view.error}${compared ? "; a difference of less than twice that is shown as 0" : ""}. ` + (k > 1
        ? `In small maps a pixel is the largest of ${k} \u00d7 ${k} cells; the large one has a pixel or more for each cell.`
        : "Every cell has a pixel or more.");
    root.append(make("p", { class: "title", text: view.title }), legend(view),
      make("div", { class: "controls" }, scale, make("label", {}, check, "bring out faint weights (square root)")),
      make("div", { class: rows.length > 1 ? "rows grid" : "rows" }, ...rows), said,
      make("div", { class: "maps" }, ...large.map((map) => map.box)),
      make("p", { class: "hint", text: `Tokens, shaded by the ${compared ? "difference" : "weight"} from the chosen destination; choose another:` }),
      line.element, make("p", { class: "note", text: note }));
    src = strongest(dest);
    redraw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    new ResizeObserver(fit).observe(root);
  };
})();
