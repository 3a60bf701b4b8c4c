"use strict";
/* What every page shares: the language switch, links within the page, and text that is set as text. */
const page = (() => {
  const root = document.documentElement;

  /* The hash holds the language and the section: #zh/scores, #scores, #zh. */
  const parse = () => {
    const parts = decodeURIComponent(location.hash.slice(1)).split("/");
    const lang = parts[0] === "zh" || parts[0] === "en" ? parts.shift() : "en";
    return { lang, section: parts[0] || "" };
  };
  const hash = (lang, section) => "#" + (lang === "zh" ? "zh" + (section ? "/" + section : "") : section);
  let translate = () => {};
  let started = false;
  const show = (lang) => {
    root.dataset.lang = lang;
    root.lang = lang === "zh" ? "zh-CN" : "en";
    for (const b of document.querySelectorAll("[data-set]")) b.setAttribute("aria-pressed", String(b.dataset.set === lang));
    translate(lang);
  };
  const follow = () => {
    const { lang, section } = parse();
    if (root.dataset.lang !== lang || !started) show(lang);
    started = true;
    const target = section && document.getElementById(section);
    if (target) target.scrollIntoView();
  };
  /* Follows the hash from now on; `into` is called with each language that is shown, the first one too. */
  const start = (into) => {
    translate = into;
    for (const b of document.querySelectorAll("[data-set]")) {
      b.addEventListener("click", () => {
        history.replaceState(null, "", hash(b.dataset.set, parse().section) || "#");
        show(b.dataset.set);
      });
    }
    for (const a of document.querySelectorAll("nav a")) {
      a.addEventListener("click", (event) => {
        event.preventDefault();
        location.hash = hash(root.dataset.lang, a.getAttribute("href").slice(1));
        follow();
      });
    }
    window.addEventListener("hashchange", follow);
    follow();
  };
  /* Everything from models and data is set as text, never parsed as HTML. */
  const el = (tag, cls, text) => {
    const node = document.createElement(tag);
    if (cls) node.className = cls;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  return { root, start, el };
})();
