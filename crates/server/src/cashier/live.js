// Keeps the cashier page true: counts down, listens for news, swaps in what changed.
// Without it the page still works: it reloads itself by a meta element.
(() => {
  "use strict";
  const $ = (selector, root = document) => root.querySelector(selector);
  const cashier = $("#cashier");
  const parts = ["order", "status", "clock", "pay", "note"];
  const sent = {}; // Each part as the server sent it; the page may have been touched since.
  let source = null, busy = false, again = false, asked = Date.now(), deadline = 0, returning = 0;
  const state = () => $("#status").dataset.state;
  const open = () => "live" in cashier.dataset;

  // Parts are swapped, not the page: nothing flashes, and screen readers announce the status.
  function swap(fresh) {
    const next = $("#cashier", fresh);
    const changed = $("#status", next).dataset.state !== state();
    const focused = cashier.contains(document.activeElement);
    for (const id of parts) {
      const from = $("#" + id, fresh), to = $("#" + id), html = from.innerHTML;
      if (sent[id] === html || (id === "clock" && !changed)) continue;
      sent[id] = html;
      to.className = from.className;
      Object.assign(to.dataset, from.dataset);
      to.replaceChildren(...from.childNodes);
    }
    cashier.className = next.className;
    document.title = fresh.title;
    if (!("live" in next.dataset)) delete cashier.dataset.live;
    if (focused && !cashier.contains(document.activeElement)) $("#status").focus();
    begin();
  }

  async function refresh() {
    if (busy) return void (again = true);
    busy = true;
    asked = Date.now();
    try {
      const answer = await fetch(cashier.dataset.self, { cache: "no-store" });
      if (answer.ok) swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch {
      // Offline: what is shown stays, and the next round tries again.
    }
    busy = false;
    if (again) again = false, refresh();
  }

  function begin() {
    const clock = $("[data-left-ms]");
    deadline = deadline || (clock ? Date.now() + Number(clock.dataset.leftMs) : 0);
    if (!open() && source) source.close();
    if (open() && !source && window.EventSource) {
      source = new EventSource(cashier.dataset.live);
      source.onmessage = (event) => {
        const news = JSON.parse(event.data);
        if (news.refresh || news.state !== state()) refresh();
      };
    }
    autoReturn();
  }

  function tick() {
    const clock = $("[data-left-ms]");
    const left = Math.max(0, Math.ceil((deadline - Date.now()) / 1000));
    if (clock) {
      const two = (n) => String(n).padStart(2, "0");
      const hours = Math.floor(left / 3600), minutes = Math.floor(left / 60) % 60;
      clock.textContent = (hours ? hours + ":" : "") + two(minutes) + ":" + two(left % 60);
      clock.classList.toggle("soon", left < 60);
    }
    // Ask seldom while the stream is up, often while it is not, a code is being made, or the time
    // is over: that it is over, the server decides.
    const heard = source && source.readyState === 1;
    const hurry = $("[data-pending]") || (clock && left === 0);
    const pause = hurry ? 1900 : heard ? 30000 : 2900;
    if (open() && !document.hidden && Date.now() - asked >= pause) refresh();
  }

  // `replace`, so that the merchant's "back" does not lead here and straight out again.
  function autoReturn() {
    const link = $("[data-auto-s]"), note = $("[data-auto-note]");
    if (!link || returning) return;
    let left = Number(link.dataset.autoS);
    returning = setInterval(() => {
      note.textContent = note.dataset.autoNote.replace("{}", --left);
      if (left > 0) return;
      clearInterval(returning);
      location.replace(link.href);
    }, 1000);
  }

  // Back from the wallet, or from the browser's cache: the stream may have died meanwhile.
  const awake = () => { if (open() && !document.hidden) refresh(); };
  document.addEventListener("visibilitychange", awake);
  addEventListener("pageshow", (event) => { if (event.persisted) awake(); });
  for (const id of parts) sent[id] = $("#" + id).innerHTML;
  setInterval(tick, 1000);
  begin();
})();
