// Lists of images that can be searched and sorted. Only one page of rows exists at a time, whatever the list's length.
const ROWS = 50;

const write = (value, digits, signed = false) => {
  if (value === null || Number.isNaN(value)) return "–";
  const text = Number.isFinite(value) ? value.toFixed(digits) : value > 0 ? "∞" : "-∞";
  return (signed && !text.startsWith("-") ? "+" : "") + text.replace("-", "−");
};

// Some file systems store an accent as a character of its own, which is not how it is typed
const searched = (text) => text.normalize().toLowerCase();

const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

const differenceOf = (columns, column, i) => {
  const value = column.values[i], before = columns[column.base].values[i];
  return value === null || before === null ? null : value === before ? 0 : value - before;
};

const cellsOf = (columns) => columns.flatMap((column) => {
  const cells = [{label: column.label, text: (i) => write(column.values[i], column.digits)}];
  if (column.base !== null) {
    cells.push({label: column.difference, text: (i) => write(differenceOf(columns, column, i), column.digits, true)});
  }
  return cells;
});

// Ways to sort: a name, and a function of an image that is smallest for those to come first
const ordersOf = (columns) => {
  const bases = new Set(columns.map((column) => column.base));
  const measures = columns.flatMap((column, number) => {
    const sign = column.lower ? -1 : 1;
    const value = (i) => (column.values[i] === null ? null : sign * column.values[i]);
    const difference = (i) => { const gain = differenceOf(columns, column, i); return gain === null ? null : sign * gain; };
    if (column.base !== null) return [[column.difference, difference]];
    return bases.has(number) ? [] : [[column.label, value]];
  });
  return [
    ...measures.flatMap(([label, key]) => [
      [`${label}, worst first`, key],
      [`${label}, best first`, (i) => (key(i) === null ? null : -key(i))],
    ]),
    ["name", (i) => i],
  ];
};

const sortedBy = (key, count) => {
  const keys = Float64Array.from({length: count}, (_, i) => key(i) ?? Infinity).map((k) => (Number.isNaN(k) ? Infinity : k));
  return Uint32Array.from({length: count}, (_, i) => i).sort((a, b) => keys[a] - keys[b] || a - b);
};

const makeList = (root, {names, columns, pictures}, open) => {
  const cells = cellsOf(columns), orders = ordersOf(columns);
  const [search, sorting] = root.querySelectorAll(".controls input, .controls select");
  const [head, body, pager] = ["thead tr", "tbody", ".pages"].map((part) => root.querySelector(part));
  const hasPictures = Object.keys(pictures).length > 0;
  let order, shown, page;

  const row = (i, place) => {
    const made = element("tr");
    const name = element("th", {scope: "row"});
    if (pictures[i]) {
      const press = () => open(names, shown, place, pictures, cells);
      const thumbnail = element("img", {loading: "lazy", alt: "", src: pictures[i].thumbnail});
      made.append(element("td", {className: "thumbnail"}, element("button", {onclick: press, tabIndex: -1}, thumbnail)));
      name.append(element("button", {className: "link", onclick: press}, names[i]));
    } else {
      if (hasPictures) made.append(element("td", {className: "thumbnail"}));
      name.append(names[i]);
    }
    made.append(name, ...cells.map(({label, text}) => {
      const cell = element("td", {}, text(i));
      cell.dataset.label = label;
      return cell;
    }));
    return made;
  };
  const draw = () => {
    const last = Math.max(0, Math.ceil(shown.length / ROWS) - 1);
    page = Math.min(Math.max(page, 0), last);
    const from = page * ROWS;
    body.replaceChildren(...Array.from(shown.slice(from, from + ROWS), (i, place) => row(i, from + place)));
    root.querySelector(".found").textContent = `${shown.length.toLocaleString("en")} of ${names.length.toLocaleString("en")} images`;
    pager.hidden = last === 0;
    pager.querySelector("span").textContent = `page ${(page + 1).toLocaleString("en")} of ${(last + 1).toLocaleString("en")}`;
    for (const button of pager.querySelectorAll("button")) {
      button.disabled = ["first", "-1"].includes(button.dataset.step) ? page === 0 : page === last;
    }
  };
  const find = () => {
    const wanted = searched(search.value);
    shown = wanted ? order.filter((i) => searched(names[i]).includes(wanted)) : order;
    page = 0;
    draw();
  };
  const sort = () => {
    order = sortedBy(orders[sorting.selectedIndex][1], names.length);
    find();
  };
  pager.addEventListener("click", ({target}) => {
    const step = target.dataset.step;
    if (!step) return;
    page = step === "first" ? 0 : step === "last" ? Infinity : page + Number(step);
    draw();
    root.scrollIntoView({block: "start"});
  });
  search.addEventListener("input", find);
  sorting.append(...orders.map(([label]) => element("option", {}, label)));
  sorting.addEventListener("change", sort);
  if (hasPictures) head.append(element("th"));
  head.append(element("th", {className: "name"}, "image"), ...cells.map(({label}) => element("th", {}, label)));
  root.hidden = false;
  sort();
};

const makeLists = (open) => {
  for (const root of document.querySelectorAll("[data-list]")) {
    const list = lists[root.dataset.list];
    if (list) makeList(root, list, open);
    else document.querySelector(`[data-missing="${root.dataset.list}"]`).hidden = false;
  }
};
