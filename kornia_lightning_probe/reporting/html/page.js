"use strict";
(() => {
  const CHOICES = ["metric", "when", "layer", "augmentation"];
  // Numbers with as many digits as their errors allow.
  const behind = (error) => Math.min(5, Math.max(0, 1 - Math.floor(Math.log10(error))));
  const sized = (value, error) => (error ? value.toFixed(behind(error)) : String(Number(value.toPrecision(3))));
  const digits = (value, error) => (value === null ? "\u2013" : sized(value, error));
  const signed = (value, error) => (value > 0 ? "+" : "") + digits(value, error).replace("-", "\u2212");
  const erring = (text, error) => (error === null ? text : `${text} ± ${sized(error, error)}`);

  // A column is one number for all, or whole numbers and what they are to be divided by.
  function reader(columns) {
    const names = Object.keys(columns);
    return (place) => Object.fromEntries(names.map((name) => {
      const { same, per, numbers } = columns[name];
      if (!numbers) return [name, same];
      return [name, numbers[place] === null ? null : numbers[place] / per];
    }));
  }

  // The rows of one metric: a mean for each result and cell, and each view.
  function rowsOf({ results, cells, start, ...columns }, views) {
    const [mean, level] = [reader(columns.means), reader(columns.levels)];
    const [means, levels] = [[], []];
    let place = 0;
    for (const e of results) {
      for (const [j, k] of cells) {
        means.push({ e, j, k, ...mean(means.length) });
        const { x: severities, curve: o, starts } = views[k];
        const own = severities.map((x) => ({ e, j, k, x, o, ...level(place++) }));
        if (starts && start !== null && own.some(({ y }) => y !== null)) own.unshift({ e, j, k, x: 0, o, y: start, s: 0 });
        levels.push(...own);
      }
    }
    return { means, levels };
  }

  async function start(article) {
    const data = JSON.parse(article.querySelector("script.data").textContent);
    const form = article.querySelector("form.choice");
    const chosen = { ...data.chosen };
    const views = [];
    const known = [];
    const rows = () => (known[chosen.metric] ??= rowsOf(data.cells[chosen.metric], data.views));
    const named = (name) => data.choices[name][chosen[name]];

    function say() {
      for (const place of article.querySelectorAll("[data-say]")) place.textContent = named(place.dataset.say);
      article.querySelector(".meaning").textContent = data.meanings[chosen.metric];
      for (const name of CHOICES) form.elements[name].value = String(chosen[name]);
      const { results } = data.cells[chosen.metric];
      for (const option of form.elements.when.options) option.disabled = !results.includes(Number(option.value));
      tell();
      fill(article.querySelector(".chosen tbody"));
    }

    // The chosen cell in words.
    function tell() {
      const row = rows().means.find(({ e, j, k }) => e === chosen.when && j === chosen.layer && k === chosen.augmentation);
      const where = `${named("layer")} under ${named("augmentation")}, ${named("when")}`;
      const parts = [row && row.y !== null ? erring(digits(row.y, row.s), row.s) : "no value"];
      if (row && row.q) parts.push("of a level no value");
      if (row && row.c !== null) {
        parts.push(`change ${erring(signed(row.c, row.t), row.t)}, ${row.d ? "decided" : "undecided"}`);
      }
      article.querySelector(".told").textContent = `${where}: ${parts.join("; ")}`;
    }

    function fill(body) {
      const here = rows().means.filter((row) => row.e === chosen.when);
      body.replaceChildren(...here.map((row) => {
        const line = document.createElement("tr");
        const name = document.createElement("th");
        name.scope = "row";
        name.textContent = data.choices.layer[row.j];
        line.append(name);
        const value = digits(row.y, row.s) + (row.q ? " *" : "");
        const change = [signed(row.c, row.t), digits(row.t, row.t)];
        for (const text of [data.choices.augmentation[row.k], value, digits(row.s, row.s), ...change]) {
          line.insertCell().textContent = text;
        }
        return line;
      }));
    }

    async function choose(changes) {
      Object.assign(chosen, changes);
      const { results } = data.cells[chosen.metric];
      // Of a metric that is shown at fewer results the nearest.
      const away = (place) => Math.abs(place - chosen.when);
      if (results.length) chosen.when = results.reduce((best, place) => (away(place) < away(best) ? place : best));
      say();
      await Promise.all(views.map(({ view, dataset }) => {
        for (const name of CHOICES) view.signal(name, chosen[name]);
        if ("metric" in changes) view.data(dataset, rows()[dataset]);
        return view.runAsync();
      }));
    }

    for (const place of article.querySelectorAll("[data-chart]")) {
      const spec = data.charts[place.dataset.chart];
      const dataset = spec.data?.name;
      if (form) spec.datasets = { [dataset]: rows()[dataset] };
      const { view } = await vegaEmbed(place, spec, { actions: false, renderer: "svg" });
      if (!form) continue;
      views.push({ view, dataset });
      view.addEventListener("click", (_, item) => {
        const row = item && item.datum;
        if (!row || row.j === undefined || row.k === undefined) return;
        choose({ layer: row.j, augmentation: row.k, when: row.e });
      });
    }
    if (!form) return;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", (event) => choose({ [event.target.name]: Number(event.target.value) }));
    say();
  }

  // On paper nothing can be opened.
  const folded = () => [...document.querySelectorAll("details:not([open])")];
  let opened = [];
  addEventListener("beforeprint", () => { opened = folded(); for (const each of opened) each.open = true; });
  addEventListener("afterprint", () => { for (const each of opened) each.open = false; });

  Promise.all([...document.querySelectorAll("article.probe")].map(start)).then(
    () => document.documentElement.setAttribute("data-drawn", String(Math.round(performance.now()))),
    (error) => {
      document.documentElement.setAttribute("data-failed", String(error));
      throw error;
    },
  );
})();
