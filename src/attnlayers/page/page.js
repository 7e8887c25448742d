"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const ROW = 26; // pixels from one token to the next, as in the style sheet
  const LINES = 1000; // lines that are drawn at most where no token is chosen
  const BINS = 600; // rows and columns of the heat map at most
  const TABLE = 100; // rows of the table at most

  // -- numbers: little-endian float32 in base64; thinned, `kept` of each query with their places

  function bytes(text) {
    const binary = atob(text);
    const out = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) out[i] = binary.charCodeAt(i);
    return out.buffer;
  }

  function decode(a) {
    if (a.numbers) return a;
    a.numbers = new Float32Array(bytes(a.values));
    if (a.kept) a.where = a.wide ? new Uint32Array(bytes(a.places)) : new Uint16Array(bytes(a.places));
    return a;
  }

  /** The weights of a layer and head, or their mean: each(f) calls f(q, k, weight); what was left out is 0. */
  function matrix(a, layer, head) {
    const Q = a.queries.length, K = a.keys.length;
    const chosen = (value, n) => value === "mean" ? [...Array(n).keys()] : [Number(value)];
    const layers = chosen(layer, a.layers), heads = chosen(head, a.heads), n = layers.length * heads.length;
    if (a.kept) {
      const start = (layers[0] * a.heads + heads[0]) * Q * a.kept;
      const each = (f) => {
        for (let i = 0; i < Q * a.kept; i++) f(Math.floor(i / a.kept), a.where[start + i], a.numbers[start + i]);
      };
      const at = (q, k) => {
        const from = start + q * a.kept, place = a.where.subarray(from, from + a.kept).indexOf(k);
        return place < 0 ? 0 : a.numbers[from + place];
      };
      return { each, at };
    }
    const out = n === 1 ? new Float32Array(Q * K) : new Float64Array(Q * K);
    for (const l of layers) for (const h of heads) {
      const start = (l * a.heads + h) * Q * K;
      for (let i = 0; i < Q * K; i++) out[i] += a.numbers[start + i];
    }
    if (n > 1) for (let i = 0; i < out.length; i++) out[i] /= n;
    const each = (f) => { for (let i = 0; i < out.length; i++) f(Math.floor(i / K), i % K, out[i]); };
    return { each, at: (q, k) => out[q * K + k] };
  }

  // -- tokens as they are shown and read out

  const SIGNS = { " ": "␣", "\n": "⏎", "\t": "⇥", "\u00a0": "⍽", "\u3000": "　␣" };
  const SPOKEN = { "": "empty", " ": "space", "\n": "line feed", "\t": "tab", "\u3000": "wide space" };
  const visible = (token) => token === "" ? "∅" :
    token.replace(/[ \n\t\u00a0\u3000]/g, (c) => token.trim() && c === " " ? c : SIGNS[c])
      .replace(/[\u0000-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0))).replace(/\u007f/g, "␡");
  const spoken = (token) => SPOKEN[token] || visible(token);
  const number = (x) => x.toFixed(4);

  let a = null; // the attention that is shown
  let W = null; // its weights, of `matrix`
  let top = 0; // the largest of them
  let over = null, kept = null; // what is pointed at and what was clicked: {side, place} or {q, k}
  let cell = 0;

  function fill(select, names, hideAlone) {
    select.replaceChildren(...names.map(([value, name]) => new Option(name, value)));
    select.parentElement.hidden = hideAlone && names.length < 2;
  }

  function choose(what) {
    const texts = data.texts;
    if (what === "text") {
      const before = a && a.name;
      const names = texts[$("text").value].attentions.map((one, i) => [i, one.name]);
      fill($("attention"), names, true);
      const same = names.find(([, name]) => name === before);
      if (same) $("attention").value = same[0];
    }
    if (what === "text" || what === "attention") {
      const before = [$("layer").value, $("head").value];
      a = decode(texts[$("text").value].attentions[$("attention").value]);
      const counted = (n) => [...Array(n).keys()].map((i) => [i, String(i + 1)]);
      const mean = (n) => n > 1 && !a.kept ? [["mean", `mean of ${n}`]] : [];
      fill($("layer"), [...counted(a.layers), ...mean(a.layers)], true);
      fill($("head"), [...counted(a.heads), ...mean(a.heads)], true);
      ["layer", "head"].forEach((id, i) => {
        if ([...$(id).options].some((option) => option.value === before[i])) $(id).value = before[i];
      });
      over = kept = null;
      tokens();
    }
    W = matrix(a, $("layer").value, $("head").value);
    top = 0;
    W.each((q, k, w) => { if (w > top) top = w; });
    const thinned = a.kept
      ? `Thinned to fit the page: of each token's ${a.keys.length} weights only the ${a.kept} largest are here.` : "";
    $("notes").textContent = [a.note, thinned].filter(Boolean).join(" ");
    heat();
    show();
  }

  // -- the two lists of tokens

  function tokens() {
    const japanese = /[\u3040-\u30ff]/.test(a.queries.join("") + a.keys.join(""));
    for (const side of ["queries", "keys"]) {
      $(side).lang = $("map").lang = japanese ? "ja" : "";
      $(side).replaceChildren(...a[side].map((token, place) => {
        const item = document.createElement("li"), button = document.createElement("button");
        button.type = "button";
        button.dir = "auto";
        button.textContent = button.title = visible(token);
        button.dataset.place = place;
        button.tabIndex = place ? -1 : 0;
        button.setAttribute("aria-pressed", "false");
        button.setAttribute("aria-label", `${spoken(token)}, ${place + 1} of ${a[side].length}`);
        item.append(button);
        return item;
      }));
    }
    $("queries-title").textContent = `${a.sides[0]} attends`;
    $("keys-title").textContent = `${a.sides[1]} is attended to`;
    $("drawn").setAttribute("height", ROW * Math.max(a.queries.length, a.keys.length));
  }

  const button = (side, place) => $(side).children[place].firstChild;

  /** The weights of one token: a list of [place on the other side, weight], largest first. */
  function of(chosen) {
    const query = chosen.side === "queries", list = [];
    if (a.kept) {
      W.each((q, k, w) => { if (w > 0 && (query ? q : k) === chosen.place) list.push([query ? k : q, w]); });
    } else {
      const n = (query ? a.keys : a.queries).length;
      for (let i = 0; i < n; i++) list.push([i, query ? W.at(chosen.place, i) : W.at(i, chosen.place)]);
    }
    return list.sort((x, y) => y[1] - x[1] || x[0] - y[0]);
  }

  function lines(chosen) {
    const found = [];
    if (chosen) {
      for (const [i, w] of of(chosen)) {
        if (w > 0) found.push(chosen.side === "queries" ? [chosen.place, i, w] : [i, chosen.place, w]);
      }
    } else {
      const all = [];
      W.each((q, k, w) => { if (w > 0) all.push(w); });
      const least = all.length > LINES ? Float64Array.from(all).sort()[all.length - LINES] : 0;
      W.each((q, k, w) => { if (w > 0 && w >= least && found.length < LINES) found.push([q, k, w]); });
    }
    const width = $("drawn").clientWidth || 160;
    $("drawn").replaceChildren(...found.map(([q, k, w]) => {
      const line = document.createElementNS($("drawn").namespaceURI, "line");
      const ends = { x1: 2, y1: q * ROW + 12, x2: width - 2, y2: k * ROW + 12 };
      for (const [name, value] of Object.entries(ends)) line.setAttribute(name, value);
      line.setAttribute("stroke-opacity", (w / (top || 1)).toFixed(3));
      line.dataset.query = q;
      line.dataset.key = k;
      return line;
    }));
  }

  // -- the heat map

  function heat() {
    const rows = Math.min(BINS, a.queries.length), columns = Math.min(BINS, a.keys.length);
    cell = Math.max(1, Math.min(24, Math.floor(BINS / Math.max(rows, columns))));
    const canvas = $("canvas"), context = canvas.getContext("2d");
    [canvas.width, canvas.height] = [columns, rows];
    canvas.style.width = `${columns * cell}px`;
    canvas.style.height = `${rows * cell}px`;
    const rgb = getComputedStyle(document.documentElement).getPropertyValue("--accent").split(",").map(Number);
    const image = context.createImageData(columns, rows);
    W.each((q, k, w) => {
      const row = Math.floor(q * rows / a.queries.length), column = Math.floor(k * columns / a.keys.length);
      const place = 4 * (row * columns + column), alpha = Math.round(255 * w / top);
      if (alpha > image.data[place + 3]) image.data.set([...rgb, alpha], place); // of several in a cell the largest
    });
    context.putImageData(image, 0, 0);
    labels($("across"), a.keys, columns * cell, "left");
    labels($("down"), a.queries, rows * cell, "top");
    $("scale").textContent = `Rows: ${a.sides[0]}; columns: ${a.sides[1]}. Full colour is the largest weight here, ` +
      `${number(top)}.` + (Math.max(a.queries.length, a.keys.length) > BINS ? " A cell shows the largest of several weights." : "");
  }

  function labels(box, names, size, side) {
    const one = size / names.length, step = Math.max(1, Math.ceil(13 / one));
    const spans = [];
    for (let i = 0; i < names.length; i += step) {
      const span = document.createElement("span");
      span.dir = "auto";
      span.textContent = visible(names[i]);
      if ([...span.textContent].length === 1) span.style.textOrientation = "upright";
      span.style[side] = `${i * one + Math.max(0, one - 12) / 2}px`;
      spans.push(span);
    }
    box.replaceChildren(...spans);
    const longest = spans.reduce((most, span) => {
      const found = span.getBoundingClientRect();
      return Math.max(most, side === "left" ? found.height : found.width);
    }, 10);
    box.style[side === "left" ? "height" : "width"] = `${Math.ceil(longest) + 8}px`;
    box.style[side === "left" ? "width" : "height"] = `${size}px`;
  }

  function cursor(place) {
    const box = $("cursor");
    box.hidden = !place;
    if (!place) return;
    const { width, height } = $("canvas").style;
    const w = parseFloat(width) / a.keys.length, h = parseFloat(height) / a.queries.length;
    const whole = place.q === undefined || place.k === undefined;
    box.style.left = `${place.k === undefined ? 0 : place.k * w}px`;
    box.style.top = `${place.q === undefined ? 0 : place.q * h}px`;
    box.style.width = whole && place.k === undefined ? width : `${Math.max(2, w)}px`;
    box.style.height = whole && place.q === undefined ? height : `${Math.max(2, h)}px`;
  }

  // -- what is chosen

  const asToken = (one) => one && (one.side ? one : { side: "queries", place: one.q });
  const asCell = (one) => one && (!one.side ? one : one.side === "queries" ? { q: one.place } : { k: one.place });

  function show() {
    const now = over || kept, token = asToken(now);
    for (const old of document.querySelectorAll(".tokens button.over")) old.classList.remove("over");
    for (const old of document.querySelectorAll('.tokens button[aria-pressed="true"]')) {
      old.setAttribute("aria-pressed", "false");
    }
    for (const old of document.querySelectorAll(".tokens button[style]")) old.removeAttribute("style");
    if (kept) button(asToken(kept).side, asToken(kept).place).setAttribute("aria-pressed", "true");
    lines(token);
    cursor(asCell(now));
    const list = token ? of(token) : [];
    if (token) {
      button(token.side, token.place).classList.add("over");
      const other = token.side === "queries" ? "keys" : "queries";
      for (const [i, w] of list) if (w > 0) button(other, i).style.setProperty("--share", (0.6 * w / top).toFixed(3));
    }
    table(token, list);
    say(now, token, list);
  }

  function heading(token) {
    const name = `“${spoken(a[token.side][token.place])}” (${token.place + 1})`;
    return token.side === "queries" ? `${name} attends to` : `${name} is attended to by`;
  }

  function table(token, list) {
    $("numbers").hidden = !token;
    if (!token) return;
    const others = token.side === "queries" ? a.keys : a.queries;
    $("caption").textContent = heading(token);
    $("rows").replaceChildren(...list.slice(0, TABLE).map(([i, w]) => {
      const row = document.createElement("tr");
      for (const value of [i + 1, visible(others[i]), number(w)]) {
        const entry = document.createElement("td");
        entry.textContent = value;
        entry.dir = "auto";
        row.append(entry);
      }
      row.lastChild.dataset.weight = w;
      row.dataset.place = i;
      return row;
    }));
    const left = list.length - TABLE;
    $("more").textContent = left > 0 ? `and ${left} smaller ones` : "";
  }

  function say(now, token, list) {
    if (!token) {
      $("status").textContent = "";
    } else if (!now.side) {
      $("status").textContent = `“${spoken(a.queries[now.q])}” (${now.q + 1}) attends to ` +
        `“${spoken(a.keys[now.k])}” (${now.k + 1}): ${number(W.at(now.q, now.k))}`;
    } else {
      const others = token.side === "queries" ? a.keys : a.queries;
      const first = list.slice(0, 5).map(([i, w]) => `“${spoken(others[i])}” ${number(w)}`).join(", ");
      $("status").textContent = `${heading(token)}: ${first}${list.length > 5 ? " …" : ""}`;
    }
  }

  const same = (x, y) => x && y && x.side === y.side && x.place === y.place && x.q === y.q && x.k === y.k;

  function keep(one) {
    kept = same(kept, one) ? null : one;
    over = null;
    show();
  }

  // -- pointer and keys

  const tokenOf = (event) => {
    const found = event.target.closest(".tokens button");
    return found && { side: found.closest("ol").id, place: Number(found.dataset.place) };
  };
  const cellOf = (event) => {
    const box = $("canvas").getBoundingClientRect();
    const part = (x, n) => Math.max(0, Math.min(n - 1, Math.floor(x * n)));
    return { q: part((event.clientY - box.top) / box.height, a.queries.length),
      k: part((event.clientX - box.left) / box.width, a.keys.length) };
  };
  const point = (one) => { if (!same(over, one)) { over = one; show(); } };

  $("lines").addEventListener("pointerover", (event) => { const one = tokenOf(event); if (one) point(one); });
  $("lines").addEventListener("pointerleave", () => point(null));
  $("lines").addEventListener("focusin", (event) => { const one = tokenOf(event); if (one) point(one); });
  $("lines").addEventListener("focusout", () => point(null));
  $("lines").addEventListener("click", (event) => { const one = tokenOf(event); if (one) keep(one); });
  $("cells").addEventListener("pointermove", (event) => point(cellOf(event)));
  $("cells").addEventListener("pointerleave", () => point(null));
  $("cells").addEventListener("click", (event) => keep(cellOf(event)));

  function next(id, by) {
    const select = $(id), n = select.options.length;
    select.selectedIndex = (select.selectedIndex + by + n) % n;
    choose(id);
  }

  function common(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const by = event.shiftKey ? -1 : 1, key = event.key.toLowerCase();
    if (key === "escape") { kept = over = null; show(); }
    else if (key === "h") next("head", by);
    else if (key === "l") next("layer", by);
    else return false;
    event.preventDefault();
    return true;
  }

  $("lines").addEventListener("keydown", (event) => {
    const one = tokenOf(event);
    if (!one || common(event)) return;
    const last = a[one.side].length - 1, other = one.side === "queries" ? "keys" : "queries";
    const to = {
      ArrowDown: [one.side, one.place + 1], ArrowUp: [one.side, one.place - 1], Home: [one.side, 0],
      End: [one.side, last], ArrowRight: ["keys", one.place], ArrowLeft: ["queries", one.place],
    }[event.key];
    if (!to) return;
    event.preventDefault();
    const goal = button(to[0], Math.max(0, Math.min(a[to[0]].length - 1, to[1])));
    for (const side of [one.side, other]) {
      for (const old of $(side).querySelectorAll('button[tabindex="0"]')) if (side === to[0]) old.tabIndex = -1;
    }
    goal.tabIndex = 0;
    goal.focus();
  });

  $("map").addEventListener("keydown", (event) => {
    if (common(event)) return;
    const by = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key];
    const now = over && !over.side ? over : kept && !kept.side ? kept : null;
    if (by) {
      const clamp = (x, n) => Math.max(0, Math.min(n - 1, x));
      point(now ? { q: clamp(now.q + by[0], a.queries.length), k: clamp(now.k + by[1], a.keys.length) } : { q: 0, k: 0 });
    } else if ((event.key === "Enter" || event.key === " ") && now) {
      keep(now);
    } else return;
    event.preventDefault();
  });
  $("map").addEventListener("focusout", () => point(null));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.defaultPrevented) { kept = over = null; show(); }
  });

  for (const id of ["text", "attention", "layer", "head"]) $(id).addEventListener("change", () => choose(id));
  $("choice").addEventListener("submit", (event) => event.preventDefault());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", heat);
  matchMedia("print").addEventListener("change", heat);
  addEventListener("beforeprint", heat);
  addEventListener("afterprint", heat);

  document.title = $("title").textContent = data.title;
  fill($("text"), data.texts.map((text, i) => [i, text.name]), true);
  choose("text");
})();
