"use strict";
// Without it the page works too: sections fold, and the meaning of a word is shown at the foot of the window.
(() => {
  const unfold = () => {
    let place = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let e = place; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
    if (place) place.scrollIntoView();
  };
  addEventListener("hashchange", unfold);
  document.querySelectorAll("nav a").forEach((a) => a.addEventListener("click", () => setTimeout(unfold)));
  unfold();

  const folded = new Set();
  addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach((e) => {
    folded.add(e);
    e.open = true;
  }));
  addEventListener("afterprint", () => {
    folded.forEach((e) => { e.open = false; });
    folded.clear();
  });

  if (!HTMLElement.prototype.showPopover) return;
  const at = (tip, word) => {
    const edge = 8, r = word.getBoundingClientRect();
    tip.style.inset = "0 auto auto 0";
    tip.style.margin = "0";
    const below = r.bottom + 6 + tip.offsetHeight + edge <= innerHeight;
    tip.style.left = Math.max(edge, Math.min(r.left, document.documentElement.clientWidth - tip.offsetWidth - edge)) + "px";
    tip.style.top = (below ? r.bottom + 6 : Math.max(edge, r.top - 6 - tip.offsetHeight)) + "px";
  };
  document.querySelectorAll(".term").forEach((word) => {
    const tip = document.getElementById(word.getAttribute("popovertarget"));
    word.removeAttribute("title");
    const show = () => {
      if (!tip.matches(":popover-open")) tip.showPopover();
      at(tip, word);
    };
    const hide = () => { if (tip.matches(":popover-open")) tip.hidePopover(); };
    word.addEventListener("pointerenter", (e) => { if (e.pointerType === "mouse") show(); });
    word.addEventListener("pointerleave", (e) => { if (e.pointerType === "mouse") hide(); });
    word.addEventListener("focus", () => { if (word.matches(":focus-visible")) show(); });
    word.addEventListener("blur", hide);
    word.addEventListener("click", (e) => { e.preventDefault(); show(); });
    addEventListener("scroll", hide, { passive: true });
  });
})();
