// Refreshes the marked part of a page when the gateway reports a change; htmx polls if no events arrive.
(function () {
  "use strict";
  var live = document.querySelector("[data-live]");
  if (!live || !window.EventSource) return;
  var source = new EventSource("/api/v1/events"), due = null;
  source.addEventListener("change", function () {
    if (due) return;
    due = setTimeout(function () { due = null; if (!document.hidden) htmx.trigger(live, "changed"); }, 400);
  });
  window.addEventListener("pagehide", function () { source.close(); });
})();
