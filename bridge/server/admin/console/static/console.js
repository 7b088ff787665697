// Refreshes the marked part of a page when the gateway reports a change; htmx polls if no events arrive.
(function () {
  "use strict";
  var live = document.querySelector("[data-live]"), source = null, due = null;
  if (!live || !window.EventSource) return;
  function close() { if (source) source.close(); source = null; }
  function open() {
    close();
    source = new EventSource("/api/v1/events");
    source.addEventListener("change", function () {
      if (due) return;
      due = setTimeout(function () { due = null; if (!document.hidden) htmx.trigger(live, "changed"); }, 400);
    });
  }
  open();
  // Firefox reports a connection that the next page cuts off as an error.
  window.addEventListener("beforeunload", close);
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", function (event) { if (event.persisted) open(); });
})();
