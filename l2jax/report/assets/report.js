"use strict";
// Draws the charts of the page in the colours of its scheme, switches strengths on and off, sorts tables.

const PRINTED_WIDTH = 330;
const dark = matchMedia("(prefers-color-scheme: dark)");
const charts = JSON.parse(document.getElementById("charts").textContent);

// Colours are "LIGHT|DARK".
function inScheme(value, scheme) {
  if (typeof value === "string" && /^#[0-9a-f]{6}\|#[0-9a-f]{6}$/i.test(value)) return value.split("|")[scheme];
  if (Array.isArray(value)) return value.map((item) => inScheme(item, scheme));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, inScheme(item, scheme)]));
}

function hidden(run) {
  const boxes = document.querySelectorAll(`fieldset[data-run="${run}"] input:not(:checked)`);
  return new Set([...boxes].map((box) => Number(box.value)));
}

function draw(id, printed = false) {
  const { run, figure } = charts[id];
  const { data, layout } = inScheme(figure, dark.matches && !printed ? 1 : 0);
  const off = hidden(run);
  for (const trace of data) if (off.has(trace.meta)) trace.visible = false;
  layout.dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom"; // a finger is to scroll the page
  layout.autosize = !printed;
  if (printed) layout.width = PRINTED_WIDTH;
  layout.uirevision = "constant"; // redrawing does not undo a zoom
  const config = { responsive: true, displaylogo: false, showSendToCloud: false, modeBarButtons: [["resetScale2d", "toImage"]] };
  return Plotly.react(document.getElementById(id), data, layout, config);
}

const drawAll = (printed = false) => Promise.all(Object.keys(charts).map((id) => draw(id, printed)));
const ofRun = (run) => Object.keys(charts).filter((id) => charts[id].switched && charts[id].run === run);

function switchStrengths(fieldset) {
  const redraw = () => ofRun(fieldset.dataset.run).forEach((id) => draw(id));
  fieldset.addEventListener("change", redraw);
  for (const button of fieldset.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      for (const box of fieldset.querySelectorAll("input")) box.checked = button.value === "all";
      redraw();
    });
  }
}

function sortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const sign = heading.ariaSort === "ascending" ? -1 : 1;
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.ariaSort = sign > 0 ? "ascending" : "descending";
      const value = (row) => row.cells[column].dataset.value;
      const order = (a, b) => {
        const difference = value(a) - value(b);
        return sign * (Number.isNaN(difference) ? value(a).localeCompare(value(b)) : difference);
      };
      const rows = [...table.tBodies[0].rows];
      const full = rows.filter((row) => value(row) !== "");
      const empty = rows.filter((row) => value(row) === "");
      table.tBodies[0].append(...full.sort(order), ...empty);
    });
  });
}

async function loadPlotly() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(unpacked).text();
  document.head.append(script);
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll("fieldset[data-run]").forEach(switchStrengths);
loadPlotly().then(async () => {
  await drawAll();
  dark.addEventListener("change", () => drawAll());
  addEventListener("beforeprint", () => drawAll(true));
  addEventListener("afterprint", () => drawAll());
  document.documentElement.dataset.drawn = "yes";
});
