"use strict";
(() => {
  const STEP = 24; // cards shown at a time
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const list = $("cards");
  const cards = [...list.children];
  const sorts = [...document.querySelectorAll("[data-sort]")];
  const order = { key: "score", down: false };
  let limit = STEP;

  // As in evaluation/metrics.py: what an empty truth or prediction scores.
  const scores = (tp, fp, fn) => ({
    precision: tp + fp ? tp / (tp + fp) : fn ? 0 : 1,
    recall: tp + fn ? tp / (tp + fn) : 1,
    f1: tp + fp + fn ? (2 * tp) / (2 * tp + fp + fn) : 1,
    iou: tp + fp + fn ? tp / (tp + fp + fn) : 1,
  });

  const sweep = data.sweep;
  const slider = $("threshold-slider");
  const pixels = (count) => `${count.toLocaleString("en")} px`;

  function atThreshold(step) {
    const total = { tp: sweep.others.tp[step], fp: sweep.others.fp[step], positives: sweep.others.positives };
    let f1 = sweep.others.f1_sum[step];
    for (const card of cards) {
      const { tp, fp, positives } = sweep.cards[Number(card.dataset.number)];
      const fn = positives - tp[step];
      const found = scores(tp[step], fp[step], fn);
      total.tp += tp[step];
      total.fp += fp[step];
      total.positives += positives;
      f1 += found.f1;
      card.dataset.score = found.f1;
      for (const place of card.querySelectorAll("[data-score-of]")) place.textContent = found[place.dataset.scoreOf].toFixed(3);
      card.querySelector(".bar span").style.width = `${100 * found.f1}%`;
      card.querySelector("[data-counts]").textContent =
        `found ${pixels(tp[step])}, false ${pixels(fp[step])}, missed ${pixels(fn)}`;
    }
    const pooled = scores(total.tp, total.fp, total.positives - total.tp);
    pooled.mean_f1 = f1 / (sweep.others.count + cards.length);
    for (const place of document.querySelectorAll("[data-figure]")) {
      place.textContent = pooled[place.dataset.figure].toFixed(3);
    }
    return pooled;
  }

  function moveThreshold() {
    const step = Number(slider.value);
    const threshold = (step / 100).toFixed(2);
    const pooled = atThreshold(step);
    const chosen = step === sweep.start ? " (the chosen one)" : "";
    $("threshold-value").textContent = threshold + chosen;
    slider.setAttribute("aria-valuetext", threshold + chosen);
    $("threshold-status").textContent = `Threshold ${threshold}: F1 ${pooled.f1.toFixed(3)}, precision ` +
      `${pooled.precision.toFixed(3)}, recall ${pooled.recall.toFixed(3)}, IoU ${pooled.iou.toFixed(3)}`;
    const line = document.querySelector(".chart .now");
    const { left, width } = line.dataset;
    line.setAttribute("transform", `translate(${(Number(width) * (step - sweep.start)) / 100} 0)`);
    line.dataset.at = Number(left) + (Number(width) * step) / 100;
  }

  const collator = new Intl.Collator("en", { numeric: true });
  const byName = (a, b) => collator.compare(a.dataset.name, b.dataset.name);
  const scoreOf = (card) => (card.dataset.score === "" ? 2 : Number(card.dataset.score)); // no pixel counts: last
  const comparing = {
    score: (a, b) => scoreOf(a) - scoreOf(b),
    name: byName,
    group: (a, b) => collator.compare(a.dataset.group, b.dataset.group),
  };

  function sort() {
    const sign = order.down ? -1 : 1;
    cards.sort((a, b) => sign * comparing[order.key](a, b) || byName(a, b));
    list.append(...cards);
    for (const button of sorts) {
      const on = button.dataset.sort === order.key;
      button.setAttribute("aria-pressed", on);
      const ends = order.key === "score" ? ["worst first", "best first"] : ["A to Z", "Z to A"];
      button.querySelector(".arrow").textContent = on ? `(${ends[Number(order.down)]})` : "";
    }
    show();
  }

  function show() {
    const tag = $("filter").value;
    const fitting = cards.filter((card) => !tag || card.dataset.tags.split(" ").includes(tag));
    const visible = new Set(fitting.slice(0, limit));
    for (const card of cards) card.hidden = !visible.has(card);
    $("shown").textContent = `${visible.size} of ${fitting.length} shown`;
    $("more").hidden = $("everything").hidden = visible.size === fitting.length;
    $("more").textContent = `Show ${Math.min(STEP, fitting.length - visible.size)} more`;
    $("everything").textContent = `Show all ${fitting.length}`;
  }

  function reveal(upTo) {
    const before = cards.filter((card) => !card.hidden).length;
    limit = upTo;
    show();
    cards.filter((card) => !card.hidden)[before]?.querySelector(".swipe").focus(); // its button may be gone
  }

  const LOOKS = { truetrue: "both", truefalse: "only-truth", falsetrue: "only-prediction", falsefalse: "none" };
  const pressed = (card, name) => card.querySelector(`[data-toggle=${name}]`).getAttribute("aria-pressed");

  function overlay(card, name, on) {
    card.querySelector(`[data-toggle=${name}]`).setAttribute("aria-pressed", on);
    card.classList.remove(...Object.values(LOOKS));
    card.classList.add(LOOKS[pressed(card, "truth") + pressed(card, "prediction")]);
  }

  function swipe(input) {
    const stage = input.parentElement;
    stage.style.setProperty("--at", `${input.value}%`);
    const [left, right] = stage.classList.contains("pair") ? ["before", "after"] : ["image", "marked"];
    input.setAttribute("aria-valuetext", `${input.value} % ${left}, ${100 - input.value} % ${right}`);
  }

  for (const button of sorts) {
    button.addEventListener("click", () => {
      order.down = order.key === button.dataset.sort ? !order.down : false;
      order.key = button.dataset.sort;
      sort();
    });
  }
  $("filter").addEventListener("change", () => { limit = STEP; show(); });
  $("more").addEventListener("click", () => reveal(limit + STEP));
  $("everything").addEventListener("click", () => reveal(Infinity));
  for (const name of ["truth", "prediction"]) {
    $(`all-${name}`).addEventListener("change", (event) => {
      for (const card of cards) overlay(card, name, event.target.checked);
    });
  }
  list.addEventListener("input", (event) => event.target.matches(".swipe") && swipe(event.target));
  list.addEventListener("click", (event) => {
    const { toggle } = event.target.dataset;
    const card = event.target.closest(".card");
    if (!toggle) return;
    overlay(card, toggle, pressed(card, toggle) === "false");
    const on = cards.filter((one) => pressed(one, toggle) === "true").length;
    $(`all-${toggle}`).checked = on === cards.length;
    $(`all-${toggle}`).indeterminate = on > 0 && on < cards.length;
  });
  for (const input of list.querySelectorAll(".swipe")) swipe(input);
  if (sweep) {
    slider.addEventListener("input", moveThreshold);
    slider.addEventListener("change", () => order.key === "score" && sort());
    $("threshold-reset").addEventListener("click", () => {
      slider.value = sweep.start;
      moveThreshold();
      sort();
    });
    slider.value = sweep.start; // a browser may keep the value of an earlier visit
    moveThreshold();
  }
  $("filter").value = "";
  sort();
})();
