"use strict";

// Theme: as the system, light, dark. Without a script the page follows the system.
const themes = { "": "Theme: as the system", light: "Theme: light", dark: "Theme: dark" };
const remembered = { read() { try { return localStorage.colpipeTheme; } catch { return ""; } }, write(theme) { try { localStorage.colpipeTheme = theme; } catch { /* a page from a file may have no storage */ } } };
const themeButton = document.getElementById("theme");
function show(theme) {
  if (theme) document.documentElement.dataset.theme = theme; else delete document.documentElement.dataset.theme;
  themeButton.textContent = themes[theme];
}
let theme = remembered.read();
if (!(theme in themes)) theme = "";
show(theme);
themeButton.hidden = false;
themeButton.addEventListener("click", () => {
  const names = Object.keys(themes);
  theme = names[(names.indexOf(theme) + 1) % names.length];
  show(theme);
  remembered.write(theme);
});

// Tables: a heading is a button that sorts, up at first; blanks stay last.
function order(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  return cell.textContent.trim();
}
function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a < b ? -1 : Number(a > b); // infinities too
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}
function sort(table, column, up) {
  const rows = [...table.tBodies[0].rows].map((row) => [order(row.cells[column]), row]);
  const filled = rows.filter(([value]) => value !== ""), blank = rows.filter(([value]) => value === "");
  filled.sort(([a], [b]) => (up ? compare(a, b) : compare(b, a)));
  table.tBodies[0].append(...filled.concat(blank).map(([, row]) => row));
}
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      sort(table, column, up);
    });
  });
}

// Curves: pointing at a name of the legend fades the others, pressing it keeps them so.
for (const figure of document.querySelectorAll("figure.charts")) {
  const buttons = [...figure.querySelectorAll(".legend button")];
  const pressed = () => buttons.find((button) => button.getAttribute("aria-pressed") === "true");
  const light = (button) => {
    for (const method of figure.querySelectorAll(".method")) {
      method.classList.toggle("faded", Boolean(button) && method.dataset.method !== button.dataset.method);
    }
  };
  for (const button of buttons) {
    for (const event of ["mouseenter", "focus"]) button.addEventListener(event, () => light(button));
    for (const event of ["mouseleave", "blur"]) button.addEventListener(event, () => light(pressed()));
    button.addEventListener("click", () => {
      const already = button === pressed();
      for (const other of buttons) other.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-pressed", String(!already));
      light(already ? null : button);
    });
  }
}
