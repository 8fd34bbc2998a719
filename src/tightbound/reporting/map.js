"use strict";
for (const box of document.querySelectorAll(".hover")) {
  const items = JSON.parse(box.dataset.items), sheet = box.querySelector("img.pictures");
  const [width, height, columns] = (box.dataset.cell || "1 1 1").split(" ").map(Number);
  const make = (name, properties) => Object.assign(document.createElement(name), properties);
  const tip = make("div", { className: "tip", role: "status", hidden: true });
  const picture = make("canvas", { width, height, className: "pixels" }), lines = make("div");
  if (sheet) tip.append(picture);
  tip.append(lines);
  document.body.append(tip);
  const maps = [...box.querySelectorAll("svg[data-at]")].map((svg) => {
    const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    ring.setAttribute("class", "ring");
    svg.append(ring);
    return { svg, ring, at: svg.dataset.at.split(" ").map((pair) => pair.split(",").map(Number)) };
  });
  let now = 0;
  const hide = () => {
    tip.hidden = true;
    for (const { ring } of maps) ring.setAttribute("r", 0);
  };
  const show = (map, i) => {
    now = i;
    for (const { ring, at } of maps) {
      ["cx", "cy", "r"].forEach((name, k) => ring.setAttribute(name, [...at[i], 6][k]));
    }
    const from = [(i % columns) * width, Math.floor(i / columns) * height, width, height];
    if (sheet) picture.getContext("2d").drawImage(sheet, ...from, 0, 0, width, height);
    lines.replaceChildren(...items[i].map((textContent) => make("p", { textContent })));
    tip.hidden = false;
    const { x, y } = new DOMPoint(...map.at[i]).matrixTransform(map.svg.getScreenCTM());
    const size = tip.getBoundingClientRect(), page = document.documentElement;
    const above = y - size.height - 14, below = Math.min(y + 14, page.clientHeight - size.height - 4);
    tip.style.left = Math.max(4, Math.min(x + 14, page.clientWidth - size.width - 4)) + "px";
    tip.style.top = Math.max(4, above < 4 ? below : above) + "px";
  };
  const nearest = (map, most, cost) => {
    const costs = map.at.map(([x, y]) => cost(x, y)), least = Math.min(...costs);
    return least < most ? costs.indexOf(least) : -1;
  };
  const turns = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  hide();
  for (const map of maps) {
    const on = (name, act) => map.svg.addEventListener(name, act);
    const point = (event) => {
      const matrix = map.svg.getScreenCTM().inverse();
      const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
      const i = nearest(map, 24, (px, py) => Math.hypot(px - x, py - y));
      i < 0 ? hide() : show(map, i);
    };
    on("pointermove", point);
    on("click", point);
    on("pointerleave", (event) => event.pointerType === "mouse" && hide());
    on("focus", () => map.svg.matches(":focus-visible") && show(map, now));
    on("blur", hide);
    on("keydown", (event) => {
      const turn = turns[event.key], [x, y] = map.at[now];
      if (event.key === "Escape") hide();
      if (!turn) return;
      event.preventDefault();
      const i = nearest(map, 1e9, (px, py) => {
        const along = (px - x) * turn[0] + (py - y) * turn[1];
        return along > 0 ? along + 2 * Math.abs((px - x) * turn[1] + (py - y) * turn[0]) : 1e9;
      });
      show(map, i < 0 ? now : i);
    });
  }
  addEventListener("scroll", hide, { passive: true });
}
