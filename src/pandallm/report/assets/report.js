"use strict";
(() => {
  const root = document.documentElement;
  const held = document.getElementById("question-data");
  const data = held ? JSON.parse(held.textContent) : null;
  const PAGE = 20;
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

  /* The hash holds the language and the section: #zh/scores, #scores, #zh. */
  const parse = () => {
    const parts = decodeURIComponent(location.hash.slice(1)).split("/");
    const lang = parts[0] === "zh" || parts[0] === "en" ? parts.shift() : "en";
    return { lang, section: parts[0] || "" };
  };
  const hash = (lang, section) => "#" + (lang === "zh" ? "zh" + (section ? "/" + section : "") : section);
  const show = (lang) => {
    root.dataset.lang = lang;
    root.lang = lang === "zh" ? "zh-CN" : "en";
    for (const b of document.querySelectorAll("[data-set]")) b.setAttribute("aria-pressed", String(b.dataset.set === lang));
    if (data) translate();
  };
  const follow = () => {
    const { lang, section } = parse();
    show(lang);
    const target = section && document.getElementById(section);
    if (target) target.scrollIntoView();
  };
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
    });
  }
  window.addEventListener("hashchange", follow);

  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const pager = document.getElementById("pager");
  let page = 0;
  let found = [];

  /* Everything from the run is set as text, never parsed as HTML. */
  const el = (tag, cls, text) => {
    const node = document.createElement(tag);
    if (cls) node.className = cls;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const say = (key, values) => {
    let s = data.text[key][root.dataset.lang];
    for (const k in values || {}) s = s.replace("{" + k + "}", () => values[k]);
    return s;
  };
  const viewName = (i) => {
    const [, prompt, method] = /^(.*) · (\w+)$/s.exec(data.views[i]) || [null, data.views[i], ""];
    return data.text[method] ? prompt + " · " + say(method) : data.views[i];
  };
  const fill = (select, first, names) => {
    const chosen = select.value;
    select.replaceChildren(...[first, ...names].map((name, i) => {
      const option = el("option", "", name);
      option.value = i === 0 ? "" : String(i - 1);
      return option;
    }));
    select.value = chosen || "";
  };
  const disagrees = (q, view) => {
    const choices = new Map();
    for (const r of q.rows) {
      if (view !== null && r.v !== view) continue;
      if (!choices.has(r.v)) choices.set(r.v, new Set());
      choices.get(r.v).add(r.c);
    }
    return [...choices.values()].some((c) => c.size > 1);
  };
  const textOf = (q) => {
    if (q.all === undefined) {
      q.all = [q.id, q.cluster, q.group, q.q || "", ...(q.o || []), q.x === undefined ? "" : data.contexts[q.x], ...q.rows.map((r) => r.t || "")].join("\n").toLowerCase();
    }
    return q.all;
  };
  const search = () => {
    const words = form.elements.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const task = form.elements.task.value === "" ? null : data.tasks[Number(form.elements.task.value)];
    const view = form.elements.view.value === "" ? null : Number(form.elements.view.value);
    found = data.questions.filter((q) =>
      (task === null || q.task === task) &&
      (view === null || q.rows.some((r) => r.v === view)) &&
      (!form.elements.disagree.checked || disagrees(q, view)) &&
      words.every((w) => textOf(q).includes(w)));
    page = 0;
    draw();
  };
  const answer = (r) => {
    if (!r) return el("td", "", "–");
    const letter = r.c === null ? "∅" : LETTERS[r.c];
    return el("td", r.ok ? "good" : "bad", letter + (r.ok ? " ✓" : " ✗"));
  };
  const card = (q, view) => {
    const box = el("article", "card");
    box.append(el("p", "id", [q.task, q.group, q.id, q.cluster !== q.id ? q.cluster : ""].filter(Boolean).join(" · ")));
    if (q.x !== undefined) {
      const d = el("details");
      d.append(el("summary", "", say("context")), el("p", "passage", data.contexts[q.x]));
      box.append(d);
    }
    if (q.q) box.append(el("p", "q", q.q));
    const options = el("ol");
    for (let i = 0; i < q.n; i++) {
      if (!q.o && i !== q.answer) continue;
      const li = el("li", i === q.answer ? "right" : "");
      li.append(el("b", "", LETTERS[i]), document.createTextNode((q.o ? q.o[i] : "") + (i === q.answer ? " ✓" : "")));
      options.append(li);
    }
    box.append(options);
    const rows = q.rows.filter((r) => view === null || r.v === view);
    const models = data.models.map((name, m) => m).filter((m) => rows.some((r) => r.m === m));
    const views = [...new Set(rows.map((r) => r.v))];
    const table = el("table");
    const head = el("tr");
    head.append(el("th", "", say("prompt")), ...models.map((m) => el("th", "", data.models[m])));
    table.append(el("thead"), el("tbody"));
    table.tHead.append(head);
    for (const v of views) {
      const tr = el("tr");
      tr.append(el("td", "", viewName(v)), ...models.map((m) => answer(rows.find((r) => r.v === v && r.m === m))));
      table.tBodies[0].append(tr);
    }
    const scroll = el("div", "box");
    scroll.append(table);
    box.append(scroll);
    const scored = rows.filter((r) => r.s);
    if (scored.length) {
      const d = el("details");
      d.append(el("summary", "", say("option_scores")));
      const inner = el("div", "box");
      const t = el("table");
      const h = el("tr");
      h.append(el("th"), el("th"), ...Array.from({ length: q.n }, (_, i) => el("th", "", LETTERS[i])));
      t.append(h);
      for (const r of scored) {
        const tr = el("tr");
        tr.append(el("td", "", viewName(r.v)), el("td", "", data.models[r.m]), ...r.s.map((s) => el("td", "num", s === null ? "–" : s.toFixed(2))));
        t.append(tr);
      }
      inner.append(t);
      d.append(inner);
      box.append(d);
    }
    const written = rows.filter((r) => r.t !== undefined);
    if (written.length) {
      const d = el("details");
      d.append(el("summary", "", say("completion")));
      for (const r of written) d.append(el("div", "id", data.models[r.m] + " · " + viewName(r.v)), el("p", "wrote", r.t));
      box.append(d);
    }
    return box;
  };
  const draw = () => {
    const view = form.elements.view.value === "" ? null : Number(form.elements.view.value);
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    list.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map((q) => card(q, view)));
    document.getElementById("found").textContent = say("found", { n: found.length.toLocaleString("en") });
    pager.hidden = pages < 2;
    pager.querySelector("span").textContent = say("page", { p: page + 1, n: pages });
    pager.querySelector("[data-step='-1']").disabled = page === 0;
    pager.querySelector("[data-step='1']").disabled = page >= pages - 1;
  };
  const translate = () => {
    form.elements.search.placeholder = say("search");
    form.elements.search.setAttribute("aria-label", say("search"));
    fill(form.elements.task, say("all_tasks"), data.tasks);
    fill(form.elements.view, say("all_prompts"), data.views.map((_, i) => viewName(i)));
    draw();
  };
  if (data) {
    form.hidden = false;
    found = data.questions;
    form.addEventListener("input", search);
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const b of pager.querySelectorAll("[data-step]")) {
      b.addEventListener("click", () => {
        page += Number(b.dataset.step);
        draw();
        document.getElementById("questions").scrollIntoView();
      });
    }
  }
  follow();
})();
