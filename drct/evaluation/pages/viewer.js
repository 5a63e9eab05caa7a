// The window that shows the pictures of one image: two of them with a divider between, and maps of their errors.
const viewer = document.querySelector("#viewer");
const stage = viewer.querySelector(".stage"), slider = viewer.querySelector("input[type=range]");
const zoom = viewer.querySelector("[data-zoom]");
let current = null;  // what `open` was called with

const pictureOf = () => current.pictures[current.shown[current.place]];

const fill = () => {  // the two chosen pictures, and their names over them
  const {views} = pictureOf();
  for (const side of ["left", "right"]) {
    const choice = viewer.querySelector(`select[data-side=${side}]`), image = viewer.querySelector(`img[data-side=${side}]`);
    for (const option of choice.options) option.hidden = option.disabled = !(option.value in views);
    if (choice.selectedOptions[0]?.disabled ?? true) choice.value = side === "left" ? "bicubic" : "result";
    const label = choice.selectedOptions[0].text;
    image.src = views[choice.value];
    image.alt = label;
    image.classList.toggle("pixels", choice.value === "lr" || zoom.value !== "fit");
    viewer.querySelector(`.tag[data-side=${side}]`).textContent = label;
  }
};
const resize = () => {
  const {width: w, height: h} = pictureOf();
  const width = zoom.value === "fit" ? `min(${Math.max(4 * w, 480)}px, ${65 * w / h}vh)` : `${w * zoom.value}px`;
  stage.style.cssText = `aspect-ratio: ${w} / ${h}; width: ${zoom.value === "fit" ? "100%" : width}; --p: ${slider.value}%`;
  slider.style.width = viewer.querySelector(".view").style.width = `min(100%, ${width})`;
};
const describe = () => {
  const i = current.shown[current.place], {size, area, width, height, maps} = pictureOf();
  viewer.querySelector("h3").textContent = current.names[i];
  const part = area ? `; shown are ${width}×${height} at ${area[0]}, ${area[1]}, the most detailed area of the input` : "";
  const numbers = current.cells.map(({label, text}) => `${label} ${text(i)}`);
  viewer.querySelector(".facts").textContent = [`${size[0]}×${size[1]} pixels${part}`, ...numbers].join(" · ");
  viewer.querySelector(".pair").classList.toggle("measured", maps.length > 0);
  viewer.querySelector(".maps").hidden = !maps.length;
  viewer.querySelectorAll(".maps figure").forEach((figure, number) => {
    if (!maps[number]) return;
    const {label, mean, map} = maps[number], shown = label || viewer.dataset.network;
    const image = figure.querySelector("img");
    image.src = map;
    image.alt = `Error map of ${shown}`;
    figure.querySelector("figcaption").textContent = `error of ${shown}, mean ${mean}`;
  });
};
const show = () => {
  viewer.querySelector(".missing").hidden = true;
  describe();
  fill();
  resize();
};
const step = (by) => {  // to the next image of the list that has pictures
  let place = current.place + by;
  while (place >= 0 && place < current.shown.length && !current.pictures[current.shown[place]]) place += by;
  if (place < 0 || place >= current.shown.length) return;
  current.place = place;
  show();
};
const open = (names, shown, place, pictures, cells) => {
  current = {names, shown, place, pictures, cells};
  viewer.showModal();
  show();
};

viewer.addEventListener("change", () => { fill(); resize(); });
viewer.addEventListener("close", () => viewer.querySelectorAll("img").forEach((image) => image.removeAttribute("src")));
viewer.addEventListener("error", ({target}) => {  // of a picture that is not there
  if (target.getAttribute("src")) viewer.querySelector(".missing").hidden = false;
}, true);
viewer.querySelector("[data-close]").addEventListener("click", () => viewer.close());
for (const button of viewer.querySelectorAll("[data-by]")) button.addEventListener("click", () => step(Number(button.dataset.by)));
slider.addEventListener("input", () => stage.style.setProperty("--p", `${slider.value}%`));
const follow = (event) => {
  const {left, width} = stage.getBoundingClientRect();
  slider.value = 100 * (event.clientX - left) / width;
  stage.style.setProperty("--p", `${slider.value}%`);
};
stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); follow(event); event.preventDefault(); });
stage.addEventListener("pointermove", (event) => { if (stage.hasPointerCapture(event.pointerId)) follow(event); });
makeLists(open);
