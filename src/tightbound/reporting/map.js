"use strict";
for (const box of document.querySelectorAll(".hover")) {
  const items = JSON.parse(box.dataset.items);
  const [width, height, columns] = (box.dataset.cell || "0 0 1").split(" ").map(Number);
  const sheet = box.querySelector("img.pictures");
  const tip = document.createElement("div"), canvas = document.createElement("canvas");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  canvas.width = width;
  canvas.height = height;
  const zoom = 128 / Math.max(width, height, 1);
  canvas.style.width = width * zoom + "px";
  canvas.style.height = height * zoom + "px";
  canvas.className = zoom > 2 ? "pixels" : "";
  if (sheet) tip.append(canvas);
  const lines = document.createElement("div");
  tip.append(lines);
  document.body.append(tip);
  let now = 0;
  const maps = [...box.querySelectorAll("svg[data-at]")].map((svg) => {
    const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    ring.setAttribute("class", "ring");
    ring.setAttribute("r", 6);
    ring.setAttribute("visibility", "hidden");
    svg.append(ring);
    return { svg, ring, at: svg.dataset.at.split(" ").map((pair) => pair.split(",").map(Number)) };
  });
  const hide = () => {
    tip.hidden = true;
    for (const map of maps) map.ring.setAttribute("visibility", "hidden");
  };
  const screen = (map, i) => new DOMPoint(...map.at[i]).matrixTransform(map.svg.getScreenCTM());
  const show = (map, i) => {
    now = i;
    for (const each of maps) {
      each.ring.setAttribute("cx", each.at[i][0]);
      each.ring.setAttribute("cy", each.at[i][1]);
      each.ring.setAttribute("visibility", "visible");
    }
    const from = [(i % columns) * width, Math.floor(i / columns) * height];
    if (sheet) canvas.getContext("2d").drawImage(sheet, ...from, width, height, 0, 0, width, height);
    lines.replaceChildren(...items[i].map((text) => Object.assign(document.createElement("p"), { textContent: text })));
    tip.hidden = false;
    const { x, y } = screen(map, i), room = document.documentElement.clientWidth, size = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(x + 14, room - size.width - 4)) + "px";
    const above = y - size.height - 14, below = Math.min(y + 14, innerHeight - size.height - 4);
    tip.style.top = Math.max(4, above < 4 ? below : above) + "px";
  };
  const nearest = (map, cost) => {
    const costs = map.at.map((_, i) => cost(i)), least = Math.min(...costs);
    return least < Infinity ? costs.indexOf(least) : -1;
  };
  const turns = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  for (const map of maps) {
    const point = (event) => {
      const i = nearest(map, (i) => {
        const place = screen(map, i), far = Math.hypot(place.x - event.clientX, place.y - event.clientY);
        return far < 30 ? far : Infinity;
      });
      i < 0 ? hide() : show(map, i);
    };
    map.svg.addEventListener("pointermove", point);
    map.svg.addEventListener("click", point);
    map.svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
    map.svg.addEventListener("focus", () => map.svg.matches(":focus-visible") && show(map, now));
    map.svg.addEventListener("blur", hide);
    map.svg.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return hide();
      const turn = turns[event.key], [x, y] = map.at[now];
      if (!turn) return;
      event.preventDefault();
      const i = nearest(map, (i) => {
        const dx = map.at[i][0] - x, dy = map.at[i][1] - y, on = dx * turn[0] + dy * turn[1];
        return on > 0 ? on + 2 * Math.abs(dx * turn[1] + dy * turn[0]) : Infinity;
      });
      show(map, i < 0 ? now : i);
    });
  }
  addEventListener("scroll", hide, { passive: true });
}
