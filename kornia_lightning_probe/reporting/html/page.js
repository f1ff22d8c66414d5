"use strict";
(() => {
  const CHOICES = ["metric", "when", "layer", "augmentation"];
  const objects = ({ columns, shared, rows }) => rows.flatMap((row) => row[shared].map((_, number) =>
    Object.fromEntries(columns.map((name, place) => [name, place < shared ? row[place] : row[place][number]]))));

  async function start(article) {
    const data = JSON.parse(article.querySelector("script.data").textContent);
    const datasets = Object.fromEntries(Object.entries(data.datasets).map(([name, table]) => [name, objects(table)]));
    const chosen = { ...data.chosen };
    const views = [];
    const form = article.querySelector("form.choice");

    function say() {
      for (const place of article.querySelectorAll("[data-say]")) {
        const name = place.dataset.say;
        place.textContent = data.choices[name][chosen[name]];
      }
      article.querySelector(".meaning").textContent = data.meanings[chosen.metric];
      for (const name of CHOICES) form.elements[name].value = String(chosen[name]);
      fill(article.querySelector(".chosen tbody"));
    }

    function fill(body) {
      const shown = (value) => (value === null ? "-" : value.toFixed(3));
      const rows = datasets.means.filter((row) => row.m === chosen.metric && row.e === chosen.when);
      body.replaceChildren(...rows.map((row) => {
        const names = [data.choices.layer[row.j], data.choices.augmentation[row.k]];
        const line = document.createElement("tr");
        for (const text of [...names, shown(row.y), shown(row.s), shown(row.c)]) {
          line.insertCell().textContent = text;
        }
        return line;
      }));
    }

    async function choose(changes) {
      Object.assign(chosen, changes);
      say();
      await Promise.all(views.map((view) => {
        for (const name of CHOICES) view.signal(name, chosen[name]);
        return view.runAsync();
      }));
    }

    for (const place of article.querySelectorAll("[data-chart]")) {
      const spec = data.charts[place.dataset.chart];
      spec.datasets = { ...spec.datasets, ...datasets };
      const { view } = await vegaEmbed(place, spec, { actions: false, renderer: "svg" });
      if (!form) continue;
      views.push(view);
      view.addEventListener("click", (_, item) => {
        const row = item && item.datum;
        if (!row || row.j === undefined || row.k === undefined) return;
        choose({ layer: row.j, augmentation: row.k });
      });
    }
    if (!form) return;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", (event) => choose({ [event.target.name]: Number(event.target.value) }));
    await choose({});
  }

  Promise.all([...document.querySelectorAll("article.probe")].map(start)).then(
    () => document.documentElement.setAttribute("data-drawn", String(Math.round(performance.now()))),
    (error) => {
      document.documentElement.setAttribute("data-failed", String(error));
      throw error;
    },
  );
})();
