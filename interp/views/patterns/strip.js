// One row of values of a long prompt: all its tokens, shaded, in a strip that scrolls by itself.
"use strict";
(() => {
  const { make, number, legend, strip, ink, schemes, starters } = globalThis.mnemoViews;

  starters.strip = (root, view) => {
    const said = make("p", { class: "said", "aria-live": "polite" });
    const words = (pos) => `${view.from ? `from ${view.from} to ` : ""}${view.names[pos]}: ${view.signed && view.values[pos] > 0 ? "+" : ""}${number(view.values[pos])} (${view.tokens[pos]})`;
    const limit = Math.max(...view.values.map(Math.abs)) || 1;
    let chosen = view.values.reduce((best, value, pos, all) => (Math.abs(value) > Math.abs(all[best]) ? pos : best), 0);
    function choose(pos) {
      chosen = pos;
      line.mark(pos, -1);
      said.textContent = words(pos);
    }
    const line = strip(view, choose, words);
    function shade() {
      const scheme = schemes();
      line.tokens.forEach((button, pos) => {
        const share = view.values[pos] / limit;
        const rgb = view.signed ? scheme.signed[Math.round((share + 1) * 127.5)] : scheme.mass[Math.round(share * 255)];
        button.style.background = `rgb(${rgb.join(",")})`;
        button.style.color = ink(rgb);
      });
    }
    line.tokens.forEach((button, pos) => {
      button.addEventListener("pointerenter", () => { said.textContent = words(pos); });
      button.addEventListener("pointerleave", () => { said.textContent = words(chosen); });
    });
    root.append(make("p", { class: "title", text: view.title }), legend(view), line.element, said, make("p", { class: "note", text: view.note }));
    shade();
    choose(chosen);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", shade);
  };
})();
