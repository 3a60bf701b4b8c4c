(() => {
  const { root, el } = page;
  const held = document.getElementById("question-data");
  const data = held ? JSON.parse(held.textContent) : null;
  /* Passages drawn at a time: ten thousand cards would take seconds and a phone's memory. */
  const CHUNK = 20;
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

  const say = (key, values) => {
    let s = data.text[key][root.dataset.lang];
    for (const k in values || {}) s = s.replace("{" + k + "}", () => values[k]);
    return s;
  };
  const viewName = (i) => {
    const v = data.views[i];
    const parts = [v.prompt, data.text[v.method] ? say(v.method) : v.method];
    if (v.shots) parts.push(say("shots", { n: v.shots }));
    if (v.chat) parts.push(say("chat"));
    return parts.join(" · ");
  };
  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const more = document.getElementById("more");
  const verdicts = []; /* one select per model: any, right, wrong */
  let groups = [];
  let drawn = 0;

  const fill = (select, names) => {
    const chosen = select.selectedIndex;
    select.replaceChildren(...names.map((name, i) => {
      const option = el("option", "", name);
      option.value = String(i);
      return option;
    }));
    select.selectedIndex = Math.max(0, chosen);
  };
  const textOf = (q) => {
    if (q.all === undefined) {
      const wrote = q.r.flatMap(([, rows]) => rows.map((r) => r[2] || ""));
      q.all = [q.i, q.k, q.g || "", q.q || "", ...(q.o || []), q.x === undefined ? "" : data.passages[q.x], ...wrote].join("\n").toLowerCase();
    }
    return q.all;
  };
  /* A question is kept if, under one of the prompts chosen, choices differ and every model is as the filters want it. */
  const fits = (q, view, wanted) => q.r.some(([v, rows]) =>
    (view < 0 || v === view) &&
    rows.some((r) => r[0] !== rows[0][0]) &&
    wanted.every((w, m) => w === 0 || (rows[m][0] === q.a) === (w === 1)));
  const search = () => {
    const words = form.elements.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const task = form.elements.task.selectedIndex - 1;
    const view = form.elements.view.selectedIndex - 1;
    const wanted = verdicts.map((s) => s.selectedIndex);
    const byPassage = new Map();
    let n = 0;
    for (const q of data.questions) {
      if (task >= 0 && q.t !== task) continue;
      if (!fits(q, view, wanted) || !words.every((w) => textOf(q).includes(w))) continue;
      const key = q.t + "\n" + q.k;
      if (!byPassage.has(key)) byPassage.set(key, []);
      byPassage.get(key).push(q);
      n += 1;
    }
    groups = [...byPassage.values()];
    drawn = 0;
    list.replaceChildren();
    document.getElementById("found").textContent = say("found", { n: n.toLocaleString("en"), g: groups.length.toLocaleString("en") });
    draw();
  };
  const draw = () => {
    const view = form.elements.view.selectedIndex - 1;
    list.append(...groups.slice(drawn, drawn + CHUNK).map((g) => passageGroup(g, view)));
    drawn = Math.min(groups.length, drawn + CHUNK);
    more.hidden = drawn >= groups.length;
    more.textContent = say("more") + " (" + (groups.length - drawn).toLocaleString("en") + ")";
  };
  const passage = (x) => {
    const d = el("details");
    d.append(el("summary", "", say("passage")), el("p", "passage", data.passages[x]));
    return d;
  };
  const passageGroup = (questions, view) => {
    const box = el("section", "passage-group");
    const first = questions[0];
    box.append(el("p", "id", [data.tasks[first.t], first.g, first.k].filter(Boolean).join(" · ")));
    const one = questions.every((q) => q.x === first.x);
    if (one && first.x !== undefined) box.append(passage(first.x));
    box.append(...questions.map((q) => card(q, view, !one)));
    return box;
  };
  const table = (head) => {
    const t = el("table");
    const tr = el("tr");
    tr.append(...head.map((h) => el("th", "", h)));
    t.append(el("thead"), el("tbody"));
    t.tHead.append(tr);
    const box = el("div", "box");
    box.tabIndex = 0;
    box.append(t);
    return [box, t.tBodies[0]];
  };
  const letter = (choice) => (choice === null ? "∅" : LETTERS[choice]);
  const card = (q, view, own) => {
    const box = el("article", "card");
    box.append(el("p", "id", q.i));
    if (own && q.x !== undefined) box.append(passage(q.x));
    if (q.q) box.append(el("p", "q", q.q));
    if (q.o) {
      const options = el("ol");
      q.o.forEach((text, i) => {
        const li = el("li", i === q.a ? "right" : "");
        li.append(el("b", "", LETTERS[i]), document.createTextNode(text + (i === q.a ? " ✓" : "")));
        options.append(li);
      });
      box.append(options);
    }
    const asked = q.r.filter(([v]) => view < 0 || v === view);
    const [answers, body] = table([say("prompt"), ...data.models]);
    for (const [v, rows] of asked) {
      const tr = el("tr", rows.some((r) => r[0] !== rows[0][0]) ? "differs" : "");
      const th = el("th", "", viewName(v));
      th.scope = "row";
      tr.append(th, ...rows.map((r) => {
        const right = r[0] === q.a;
        return el("td", right ? "good" : "bad", letter(r[0]) + (right ? " ✓" : " ✗"));
      }));
      body.append(tr);
    }
    box.append(answers);
    if (!q.o) box.append(el("p", "id", "✓ " + LETTERS[q.a]));
    const scored = asked.flatMap(([v, rows]) => rows.map((r, m) => [v, m, r])).filter(([, , r]) => r[1]);
    if (scored.length) {
      const d = el("details");
      const [inner, lines] = table(["", "", ...Array.from({ length: q.n }, (_, i) => LETTERS[i])]);
      for (const [v, m, r] of scored) {
        const tr = el("tr");
        tr.append(el("td", "", viewName(v)), el("td", "", data.models[m]));
        tr.append(...r[1].map((s, i) => el("td", "num" + (i === r[0] ? " chosen" : "") + (i === q.a ? " key" : ""), s === null ? "–" : s.toFixed(2))));
        lines.append(tr);
      }
      d.append(el("summary", "", say("option_scores")), inner);
      box.append(d);
    }
    const written = asked.flatMap(([v, rows]) => rows.map((r, m) => [v, m, r])).filter(([, , r]) => typeof r[2] === "string");
    if (written.length) {
      const d = el("details");
      d.append(el("summary", "", say("completion")));
      for (const [v, m, r] of written) d.append(el("div", "id", data.models[m] + " · " + viewName(v)), el("p", "wrote", r[2]));
      box.append(d);
    }
    return box;
  };
  const translate = () => {
    form.elements.search.placeholder = say("search");
    form.elements.search.setAttribute("aria-label", say("search"));
    fill(form.elements.task, [say("all_tasks"), ...data.tasks]);
    fill(form.elements.view, [say("all_prompts"), ...data.views.map((_, i) => viewName(i))]);
    verdicts.forEach((select, m) => {
      fill(select, ["any", "is_right", "is_wrong"].map((key) => say(key, { m: data.models[m] })));
      select.setAttribute("aria-label", data.models[m]);
    });
    search();
  };
  if (data) {
    form.hidden = false;
    for (const m of data.models.keys()) {
      const select = el("select");
      select.name = "model-" + m;
      verdicts.push(select);
      form.append(select);
    }
    let wait = 0;
    form.addEventListener("input", () => {
      clearTimeout(wait);
      wait = setTimeout(search, 120);
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", () => {
      const before = list.childElementCount;
      draw();
      /* The keyboard goes on where the new passages begin. */
      const next = list.children[before];
      if (next) {
        next.tabIndex = -1;
        next.focus({ preventScroll: true });
      }
    });
  }
  page.start(() => { if (data) translate(); });
})();
