"use strict";
const data = JSON.parse(document.getElementById("data").textContent);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function card(item) {
  const made = element("li");
  const picture = element("div", "picture");
  if (item.thumbnail) {
    const image = element("img");
    image.src = item.thumbnail;
    image.alt = "";
    picture.append(image);
  } else {
    picture.textContent = "no thumbnail";
  }
  const name = element(item.link ? "a" : "span", "name", item.name);
  name.title = item.source;
  if (item.link) name.href = item.link;
  made.append(picture, element("div", "score", item.label), name);
  return made;
}

document.querySelector("h1").textContent = data.title;
document.getElementById("note").textContent = data.note;
for (const group of data.groups) {
  const section = element("section");
  const grid = element("ul", "grid");
  grid.append(...group.items.map(card));
  section.append(element("h2", "", group.title), grid);
  document.querySelector("main").append(section);
}
