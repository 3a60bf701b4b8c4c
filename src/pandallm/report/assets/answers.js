(() => {
  const { el } = page;
  const data = JSON.parse(document.getElementById("data").textContent);
  const cards = [...document.querySelectorAll(".prompt")];
  const byId = (id) => document.getElementById(id);
  const KEY = "pandallm-answers-" + data.digest;
  const several = data.models.length > 1;

  /* votes: prompt -> ranks of the answers in the order shown (0: not yet ranked); revealed: prompts with names. */
  let state = { votes: {}, revealed: {} };
  let kept = true;
  try {
    const stored = localStorage.getItem(KEY);
    if (stored) state = JSON.parse(stored);
  } catch { kept = false; }
  const keep = () => {
    try { localStorage.setItem(KEY, JSON.stringify(state)); } catch { kept = false; }
  };

  const say = (key, values) => {
    const out = [];
    for (const lang of ["en", "zh"]) {
      const span = el("span", "", data.text[key][lang].replace(/\{(\w+)\}/g, (_, k) => String(values[k])));
      span.dataset.l = lang;
      out.push(span);
    }
    return out;
  };

  const voted = (id) => (state.votes[id] || []).length > 0 && state.votes[id].every((r) => r > 0);
  const complete = () => Object.fromEntries(Object.keys(data.order).filter(voted).map((id) => [id, state.votes[id]]));

  const drawCard = (card) => {
    const id = card.dataset.id;
    const open = !several || !!state.revealed[id];
    const ranks = state.votes[id] || [];
    card.classList.toggle("open", open);
    for (const said of card.querySelectorAll(".said")) {
      said.querySelector(".name").textContent = open ? data.models[data.order[id][Number(said.dataset.place)]] : "";
    }
    for (const b of card.querySelectorAll("[data-ranks]")) {
      b.setAttribute("aria-pressed", String(b.dataset.ranks === ranks.join(",")));
      b.disabled = open;
    }
    for (const b of card.querySelectorAll("[data-rank]")) {
      b.setAttribute("aria-pressed", String(ranks[Number(b.dataset.place)] === Number(b.dataset.rank)));
      b.disabled = open;
    }
    const reveal = card.querySelector(".reveal");
    if (reveal) reveal.hidden = open;
    const box = card.querySelector(".judged");
    box.replaceChildren();
    const rows = several && open ? data.judged[id] || [] : [];
    if (rows.length) {
      const details = el("details");
      const summary = el("summary");
      summary.append(...say("verdict"));
      details.append(summary);
      for (const r of rows) {
        const line = el("p");
        const verdict = el("b");
        if (r.preferred !== null) verdict.textContent = r.preferred;
        else verdict.append(...say(r.verdict === null ? "unparsed" : "tie"));
        line.append(r.a + " · " + r.b + ": ", verdict, " (", ...say("shown_first", { name: r.first }), ")\n", r.reply || "");
        details.append(line);
      }
      box.append(details);
    }
  };

  const count = () => {
    const body = byId("counts").tBodies[0];
    body.replaceChildren();
    const votes = complete();
    for (let a = 0; a < data.models.length; a++) {
      for (let b = a + 1; b < data.models.length; b++) {
        const n = [0, 0, 0];
        for (const id in votes) {
          const rank = (m) => votes[id][data.order[id].indexOf(m)];
          n[rank(a) < rank(b) ? 0 : rank(a) === rank(b) ? 1 : 2]++;
        }
        const tr = el("tr");
        tr.append(el("th", "", data.models[a]), el("th", "", data.models[b]), ...n.map((x) => el("td", "num", String(x))));
        body.append(tr);
      }
    }
  };

  const value = (id) => (byId(id) ? byId(id).value : "");
  const filter = () => {
    const onlyOpen = byId("open") && byId("open").checked;
    for (const card of cards) {
      const { id, category, language } = card.dataset;
      card.hidden = (value("category") !== "" && category !== value("category")) ||
        (value("language") !== "" && language !== value("language")) ||
        (onlyOpen && (voted(id) || !!state.revealed[id]));
    }
  };
  const status = () => {
    if (!several) return;
    byId("progress").replaceChildren(...say("progress", { n: Object.keys(complete()).length, total: cards.length }));
    byId("kept").replaceChildren(...say(kept ? "kept" : "not_kept"));
    byId("download").disabled = Object.keys(complete()).length === 0;
    const all = cards.every((c) => state.revealed[c.dataset.id]);
    byId("revealed").hidden = !all;
    byId("hidden-results").hidden = all;
    byId("reveal-all").disabled = all;
    if (all) count();
  };
  const drawAll = () => {
    cards.forEach(drawCard);
    filter();
    status();
  };

  for (const card of cards) {
    const id = card.dataset.id;
    const places = data.order[id].length;
    card.querySelector(".vote").hidden = !several;
    card.addEventListener("click", (event) => {
      const b = event.target.closest("button");
      if (!b) return;
      if (b.classList.contains("reveal")) {
        state.revealed[id] = true;
      } else if (b.dataset.ranks) {
        state.votes[id] = b.dataset.ranks.split(",").map(Number);
      } else if (b.dataset.rank) {
        const ranks = state.votes[id] || Array(places).fill(0);
        ranks[Number(b.dataset.place)] = Number(b.dataset.rank);
        state.votes[id] = ranks;
      } else return;
      keep();
      drawCard(card);
      status(); // no filtering here: a card must not vanish under the reader's finger
    });
  }
  document.querySelector("nav a").addEventListener("click", (event) => {
    event.preventDefault(); // the hash holds the language
    byId("results").scrollIntoView();
  });
  for (const id of ["category", "language", "open"]) if (byId(id)) byId(id).addEventListener("change", filter);

  if (several) {
    byId("actions").hidden = false;
    byId("download").addEventListener("click", () => {
      const votes = { version: 1, digest: data.digest, votes: complete() };
      const a = el("a");
      a.href = URL.createObjectURL(new Blob([JSON.stringify(votes, null, 1) + "\n"], { type: "application/json" }));
      a.download = "votes.json";
      a.click();
      setTimeout(() => URL.revokeObjectURL(a.href), 10000);
    });
    /* What cannot be taken back asks for a second press, with `question` on the button meanwhile. */
    const twice = (id, label, question, act) => {
      let sure = false;
      byId(id).addEventListener("click", () => {
        const asking = !sure && question();
        sure = !!asking;
        byId(id).replaceChildren(...(asking || say(label)));
        if (!asking) act();
      });
    };
    const open = () => cards.filter((c) => !voted(c.dataset.id) && !state.revealed[c.dataset.id]).length;
    twice("reveal-all", "reveal_all", () => open() > 0 && say("reveal_sure", { n: open() }), () => {
      for (const c of cards) state.revealed[c.dataset.id] = true;
      keep();
      drawAll();
    });
    twice("clear", "clear", () => say("clear_sure"), () => {
      state = { votes: {}, revealed: {} };
      keep();
      drawAll();
    });
  }
  byId("controls").hidden = false;
  page.start((lang) => {
    for (const o of document.querySelectorAll("[data-say]")) o.textContent = data.text[o.dataset.say][lang];
  });
  drawAll();
})();
