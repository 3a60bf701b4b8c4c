(() => {
  const { root, el } = page;
  /* One pack of questions; of a study, one for each seed. */
  const packs = [...document.querySelectorAll("script[type='application/gzip']")];
  let data = null;
  const PAGE = 20;
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const pager = document.getElementById("pager");
  let number = 0;
  let found = [];

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
    number = 0;
    draw();
  };
  const answer = (r, right) => {
    if (!r) return el("td", "", "–");
    const letter = r.c === null ? "∅" : LETTERS[r.c];
    return el("td", r.c === right ? "good" : "bad", letter + (r.c === right ? " ✓" : " ✗"));
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
      tr.append(el("td", "", viewName(v)), ...models.map((m) => answer(rows.find((r) => r.v === v && r.m === m), q.answer)));
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
    list.replaceChildren(...found.slice(number * PAGE, (number + 1) * PAGE).map((q) => card(q, view)));
    document.getElementById("found").textContent = say("found", { n: found.length.toLocaleString("en") });
    pager.hidden = pages < 2;
    pager.querySelector("span").textContent = say("page", { p: number + 1, n: pages });
    pager.querySelector("[data-step='-1']").disabled = number === 0;
    pager.querySelector("[data-step='1']").disabled = number >= pages - 1;
  };
  const translate = () => {
    if (form.elements.seed) {
      const chosen = form.elements.seed.selectedIndex;
      form.elements.seed.replaceChildren(...packs.map((held) => el("option", "", say("seed", { n: held.dataset.seed }))));
      form.elements.seed.selectedIndex = Math.max(0, chosen);
    }
    form.elements.search.placeholder = say("search");
    form.elements.search.setAttribute("aria-label", say("search"));
    fill(form.elements.task, say("all_tasks"), data.tasks);
    fill(form.elements.view, say("all_prompts"), data.views.map((_, i) => viewName(i)));
    draw();
  };
  /* The questions are gzipped JSON in base64: ten thousand of them stay below 3 MB. */
  const unpack = async (held) => {
    const packed = atob(held.textContent);
    const bytes = new Uint8Array(packed.length);
    for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  };
  let last = 0;
  const load = (which) => {
    const waiting = document.getElementById("unpacking");
    const mine = ++last;
    waiting.hidden = false;
    return unpack(packs[which]).then((value) => {
      if (mine !== last) return; /* another seed has been chosen meanwhile */
      data = value;
      found = data.questions;
      form.hidden = false;
      translate();
      search();
    }, () => { document.getElementById("too-old").hidden = false; }).finally(() => { waiting.hidden = mine === last; });
  };
  page.start(() => { if (data) translate(); });
  if (packs.length) {
    form.addEventListener("input", (event) => {
      if (event.target.name === "seed") load(event.target.selectedIndex);
      else search();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const b of pager.querySelectorAll("[data-step]")) {
      b.addEventListener("click", () => {
        number += Number(b.dataset.step);
        draw();
        document.getElementById("questions").scrollIntoView();
      });
    }
    load(0);
  }
})();
