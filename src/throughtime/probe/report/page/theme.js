"use strict";

const $ = (selector) => document.querySelector(selector);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const data = JSON.parse($("#data").textContent);

const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

const colour = (name) => {
  const probe = element("i", { hidden: true });
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
};

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  $("#theme span").textContent = isDark() ? "light" : "dark";
  document.dispatchEvent(new Event("theme"));
}

const otherTheme = () => setTheme(isDark() ? "light" : "dark");
$("#theme").addEventListener("click", otherTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme());

const whole = (number) => number.toLocaleString("en");
const percent = (share) => (share >= 0.0995 ? `${Math.round(share * 100)} %` : `${(share * 100).toPrecision(share >= 0.001 ? 2 : 1)} %`);

function figure3(number) {
  if (number === null || Number.isNaN(number)) return "–";
  if (Number.isInteger(number)) return whole(number).replace("-", "−");
  const size = Math.abs(number);
  const text = size >= 1e6 || size < 1e-3 ? number.toExponential(1) : String(Number(number.toPrecision(3)));
  return text.replace(/-/g, "−");
}
