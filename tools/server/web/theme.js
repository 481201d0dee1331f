// theme.js: light or dark before the first paint.  Not a module, because modules run after it.
(function () {
  try {
    const wanted = JSON.parse(localStorage.getItem("tq.theme"));
    if (wanted === "light" || wanted === "dark") document.documentElement.dataset.theme = wanted;
  } catch {
    // Storage is switched off: as the system has it.
  }
})();
