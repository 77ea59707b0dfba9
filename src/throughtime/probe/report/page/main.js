"use strict";
// Head, figures and foot; then the first look.

$("h1").textContent = data.title;
$(".about").textContent = data.about;
for (const [name, value] of data.facts) $(".facts").append(element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value })));
$("#text .lead").textContent = text.lead;
$("#text .meaning").textContent = text.meaning;
$("nav").append(element("a", { href: "#text", textContent: "The text" }));
for (const part of data.parts) {
  $("nav").append(element("a", { href: `#${part.id}`, textContent: part.title }));
  const section = element("section", { id: part.id }, element("h2", { textContent: part.title }), element("p", { className: "lead", textContent: part.lead }));
  section.append(element("div", { className: "figures" }, ...part.figures.map(chart)));
  $("main").append(section);
}
$("footer").textContent = data.foot;
listFeatures();
setTheme();
colourText();
