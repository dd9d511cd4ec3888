// What ipywidgets leaves out for those who use the keyboard. It runs once in a page and serves the quizzes shown later too.
if (!window.servinglabQuiz) {
  window.servinglabQuiz = true;

  const KEEP = "data-lm-suppress-shortcuts";
  const quizOf = target => target.closest?.(".servinglab-quiz");

  function once(element, changed) {
    const watcher = new MutationObserver(() => changed() && watcher.disconnect());
    watcher.observe(element, { childList: true, subtree: true });
    setTimeout(() => watcher.disconnect(), 10000);
  }

  // JupyterLab takes ↓, b and d d from whatever has the focus, unless that very element forbids it.
  document.addEventListener("focusin", ({ target }) => {
    if (!quizOf(target)) return;
    target.toggleAttribute(KEEP, true);
    // Radio buttons without a name are no group: the arrows would not move between them.
    const radios = target.closest(".widget-radio-box")?.querySelectorAll("input:not([name])") ?? [];
    const name = `servinglab-quiz-${Math.random()}`;
    radios.forEach(radio => radio.setAttribute("name", name));
  });

  // Saving still works: at the window this runs before JupyterLab looks at the key.
  window.addEventListener("keydown", ({ target, code, ctrlKey, metaKey }) => {
    if (quizOf(target)) target.toggleAttribute(KEEP, !((ctrlKey || metaKey) && code === "KeyS"));
  }, true);

  // A click on a quiz's text would give the focus to the cell, and the next key to the notebook.
  document.addEventListener("mousedown", ({ target }) => {
    const quiz = quizOf(target);
    if (quiz) quiz.tabIndex = -1;
  }, true);

  document.addEventListener("click", event => {
    const quiz = quizOf(event.target);
    if (!quiz) return;
    const clicked = kind => event.target.closest(kind);
    if (clicked(".servinglab-quiz-move")) {
      // The new question's first field gets the focus, or one would have to go back to it with Shift+Tab.
      const panel = quiz.querySelector(".servinglab-quiz-panel");
      const old = panel.querySelector("input, select");
      once(panel, () => {
        const first = panel.querySelector("input, select, a");
        if (!first || first === old) return false;
        first.focus();
        quiz.firstElementChild.scrollIntoView({ block: "nearest" });
        return true;
      });
    } else if (clicked(".servinglab-quiz-check")) {
      const said = quiz.querySelector(".servinglab-quiz-said");
      once(said, () => {
        said.scrollIntoView({ block: "nearest" });
        return true;
      });
    } else if (clicked("a")) {
      // JupyterLab follows links to a heading in Markdown, but not in widgets.
      const name = CSS.escape(decodeURIComponent(clicked("a").hash.slice(1)));
      const heading = quiz.closest(".jp-Notebook")?.querySelector(`[data-jupyter-id="${name}"], [id="${name}"]`);
      if (!heading) return;
      event.preventDefault();
      heading.closest(".jp-Cell").focus({ preventScroll: true });
      heading.scrollIntoView();
    }
  });
}
