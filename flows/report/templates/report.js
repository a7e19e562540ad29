(() => {
  "use strict";
  const PAGE = 10;
  const form = document.getElementById("filter");
  if (!form) return;
  const samples = [...document.querySelectorAll("details.sample")];
  const more = document.getElementById("more");
  const found = document.getElementById("found");
  let texts = null;
  let limit = PAGE;

  const field = (name) => (form.elements[name] ? form.elements[name].value : "");

  function matches() {
    const words = field("text").toLowerCase().split(/\s+/).filter(Boolean);
    const state = field("state");
    const reason = field("reason");
    if (words.length && !texts) texts = samples.map((sample) => sample.textContent.toLowerCase());
    return samples.filter((sample, i) =>
      (!state || sample.dataset.state === state) &&
      (!reason || sample.dataset.reason === reason) &&
      words.every((word) => texts[i].includes(word)));
  }

  function show() {
    const all = matches();
    const visible = new Set(all.slice(0, limit));
    for (const sample of samples) sample.hidden = !visible.has(sample);
    more.hidden = all.length <= limit;
    found.textContent = all.length
      ? `${visible.size} of ${all.length} shown` + (all.length < samples.length ? `, found among ${samples.length}` : "")
      : "No sample matches.";
  }

  function openLinked() {
    const linked = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!linked || !linked.matches("details.sample")) return;
    linked.hidden = false;
    linked.open = true;
    linked.scrollIntoView();
  }

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { limit = PAGE; show(); });
  more.addEventListener("click", () => { limit += 5 * PAGE; show(); });
  window.addEventListener("hashchange", openLinked);
  show();
  openLinked();
})();
