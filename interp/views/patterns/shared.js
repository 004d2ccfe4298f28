// Shared by all views of tokens: style, start, the legend of roles and the strip of tokens.
"use strict";
globalThis.mnemoViews = (() => {
  const starters = globalThis.mnemoViews?.starters ?? {};

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "text") element.textContent = value;
      else if (value !== null) element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }

  function number(value) {
    const size = Math.abs(value);
    return (size > 0 && size < 0.0005 ? value.toPrecision(1) : value.toFixed(3)).replace("-", "\u2212");
  }

  function legend(view) {
    return make("ul", { class: "legend", "aria-label": "colours of the roles" }, ...view.legend.filter(([words]) => words).map(([words, colour]) => {
      const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
      swatch.style.background = colour;
      return make("li", {}, swatch, words);
    }));
  }

  const colour = (view, pos) => view.legend[view.roles[pos]][1];

  // All tokens in order, with the role as a bar under each. One is in the tab order; arrow keys move from there.
  function strip(view, pick, words) {
    const tokens = view.tokens.map((token, pos) => {
      const button = make("button", { type: "button", class: "token", tabindex: "-1", title: words(pos), text: token });
      button.style.borderBottomColor = colour(view, pos);
      button.setAttribute("aria-label", `${view.names[pos]}, ${token}`);
      button.addEventListener("click", () => pick(pos));
      button.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        const to = event.key === "Home" ? 0 : event.key === "End" ? tokens.length - 1 : step ? pos + step : -1;
        if (to < 0 || to >= tokens.length) return;
        event.preventDefault();
        pick(to);
        tokens[to].focus();
      });
      return button;
    });
    const element = make("div", { class: "strip", role: "group", "aria-label": "tokens of the prompt" }, ...tokens);
    function mark(dest, src) {
      tokens.forEach((button, pos) => {
        button.tabIndex = pos === dest ? 0 : -1;
        button.setAttribute("aria-pressed", String(pos === dest));
        button.classList.toggle("source", pos === src);
      });
      // The strip scrolls by itself: the chosen token is in sight, and stays where it is if it was.
      const [at, frame] = [tokens[dest].getBoundingClientRect(), element.getBoundingClientRect()];
      if (at.top < frame.top || at.bottom > frame.bottom) element.scrollTop += at.top - frame.top - frame.height / 2;
    }
    return { element, tokens, mark };
  }

  // Colours between stops, as 256 numbers; `ink` says whether text on a colour is best dark or light.
  function ramp(stops) {
    return Array.from({ length: 256 }, (_, i) => {
      const x = (i / 255) * (stops.length - 1);
      const [a, b] = [stops[Math.floor(x)], stops[Math.min(Math.floor(x) + 1, stops.length - 1)]];
      return a.map((from, c) => Math.round(from + (b[c] - from) * (x % 1)));
    });
  }
  const ink = ([r, g, b]) => (0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#15181c" : "#ffffff");
  const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
  const schemes = () => (dark()
    ? { mass: ramp([[22, 26, 32], [32, 92, 150], [110, 182, 250], [235, 246, 255]]),
        signed: ramp([[255, 196, 178], [214, 96, 77], [22, 26, 32], [67, 147, 215], [190, 224, 255]]), empty: [52, 58, 68] }
    : { mass: ramp([[255, 255, 255], [107, 174, 214], [8, 48, 107]]),
        signed: ramp([[178, 24, 43], [244, 165, 130], [247, 247, 247], [146, 197, 222], [33, 102, 172]]), empty: [229, 231, 236] });

  function start() {
    const style = document.querySelector("style[data-mnemo-attention]") ?? document.head.appendChild(make("style", { "data-mnemo-attention": "" }));
    style.textContent = "STYLE";
    for (const root of document.querySelectorAll(".mnemo-attention:not([data-ready])")) {
      const view = JSON.parse(root.querySelector("script[type='application/json']").textContent);
      if (!starters[view.kind]) continue; // its script comes later on the page
      root.dataset.ready = "false";
      Promise.resolve(starters[view.kind](root, view)).then(() => {
        const still = root.closest(".mnemo-view")?.querySelector(".mnemo-still");
        if (still) still.hidden = true;
        root.dataset.ready = "true";
      }).catch((error) => { // the still picture stays
        root.dataset.ready = "failed";
        root.replaceChildren(make("p", { class: "note", text: `This browser cannot draw the live view: ${error.message}` }));
        console.error(error);
      });
    }
  }
  return { starters, make, number, legend, colour, strip, ink, dark, schemes, start };
})();
