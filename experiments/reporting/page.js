// When is a live view drawn? Those in sight first, the others one at a time when the page has nothing else to do. Until
// then, and on paper, the still picture stands in its place; the script of a kind runs when the first of it is drawn.
"use strict";
(() => {
  const ready = new Set();
  const waiting = [...document.querySelectorAll(".mnemo-view[data-bundle]")];

  function draw(view) {
    const at = waiting.indexOf(view);
    if (at < 0) return;
    waiting.splice(at, 1);
    const kind = view.dataset.bundle, bundle = document.querySelector(`script[data-bundle="${kind}"]`);
    if (!ready.has(kind)) {
      ready.add(kind);
      document.head.append(Object.assign(document.createElement("script"), { textContent: bundle.textContent }));
    }
    const live = Object.assign(document.createElement("div"), { className: "live" });
    const template = view.querySelector(":scope > template");
    live.append(document.importNode(template.content, true));
    template.replaceWith(live);
    view.classList.add("drawn");
  }

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); }
  }, { rootMargin: "400px" });
  waiting.forEach((view) => seen.observe(view));

  const later = window.requestIdleCallback ?? ((work) => setTimeout(work, 200));
  const next = () => {
    if (!waiting.length) return;
    draw(waiting[0]);
    setTimeout(() => later(next), 100);
  };
  addEventListener("load", () => setTimeout(() => later(next), 600));
})();
