// A chat for browsers that have no WebSocket, EventSource, fetch or JSON, in ECMAScript 3. It polls by XMLHttpRequest where
// that can read the server's answers, or else by scripts (JSONP), which needs `subscribe.jsonp = true`.
(function () {
  // Empty if the page comes by the same host as Fanwire; else such as "https://fanwire.example.com".
  var SERVER = "";
  var TOPIC = "chat:lobby";
  // A poll that brings nothing is answered after this time.
  var WAIT_S = 15;
  var TIMEOUT_MS = (WAIT_S + 10) * 1000;
  var PAUSE_MAX_MS = 20000;

  var cursor = "";
  var session = "";
  var failures = 0;
  var scripts = 0;

  function find(id) {
    return document.getElementById(id);
  }

  function say(words) {
    find("status").innerHTML = "";
    find("status").appendChild(document.createTextNode(words));
  }

  /** Shows a message above the older ones. */
  function show(text) {
    var row = document.createElement("li");
    row.appendChild(document.createTextNode(text));
    find("messages").insertBefore(row, find("messages").firstChild);
  }

  /** Returns a request that reaches the server, or null. */
  function newRequest() {
    var isNear = SERVER === "";
    try {
      if (!window.XMLHttpRequest) return isNear ? new ActiveXObject("Microsoft.XMLHTTP") : null;
      var request = new XMLHttpRequest();
      // One without this property reads answers of the page's own host alone.
      return isNear || "withCredentials" in request ? request : null;
    } catch (error) {
      return null;
    }
  }

  /** Calls `done` with the status and the text of the answer; the status is 0 if there is none. */
  function ask(request, method, url, body, done) {
    var timer = setTimeout(finish, TIMEOUT_MS);
    function finish() {
      var status = 0;
      var text = "";
      clearTimeout(timer);
      request.onreadystatechange = function () {};
      if (request.readyState === 4) {
        try {
          status = request.status;
          text = request.responseText;
        } catch (error) {
          // Some browsers let nobody ask where there was no answer.
        }
      } else {
        request.abort();
      }
      done(status, text);
    }
    request.open(method, url, true);
    request.onreadystatechange = function () {
      if (request.readyState === 4) finish();
    };
    if (body) request.setRequestHeader("Content-Type", "text/plain; charset=utf-8");
    request.send(body);
  }

  /** Calls `done` with the object that the script brings, or with null. */
  function askByScript(url, done) {
    var script = document.createElement("script");
    var name = "fanwirePoll" + scripts;
    var timer = setTimeout(fail, TIMEOUT_MS);
    function finish(answer) {
      clearTimeout(timer);
      // A script that comes too late does nothing.
      window[name] = function () {};
      script.onload = script.onerror = script.onreadystatechange = null;
      script.parentNode.removeChild(script);
      done(answer);
    }
    function fail() {
      finish(null);
    }
    window[name] = finish;
    // A script that ran has finished before these are called.
    script.onload = script.onerror = fail;
    script.onreadystatechange = function () {
      if (script.readyState === "loaded") setTimeout(function () { if (script.onload) fail(); }, 0);
    };
    scripts = (scripts + 1) % 100;
    script.src = url + "&callback=" + name;
    document.getElementsByTagName("head")[0].appendChild(script);
  }

  function poll() {
    // The first tells at once whether the server is there.
    var wait = cursor === "" || failures > 0 ? 0 : WAIT_S;
    var url = SERVER + "/subscribe?as=poll&topic=" + encodeURIComponent(TOPIC) + "&wait=" + wait +
      "&cursor=" + encodeURIComponent(cursor) + "&session=" + encodeURIComponent(session);
    var request = newRequest();
    if (!request) {
      askByScript(url, function (answer) {
        if (answer) take(answer, "scripts");
        else pollLater();
      });
      return;
    }
    ask(request, "GET", url, null, function (status, text) {
      if (status === 200) take(JSON.parse(text), "XMLHttpRequest");
      else if (status >= 400 && status < 500) say("Refused: " + text);
      else pollLater();
    });
  }

  /** The session goes on if it is polled again within 15 seconds. Later, the cursor leads on. */
  function pollLater() {
    failures += 1;
    say("Connecting...");
    setTimeout(poll, Math.min(PAUSE_MAX_MS, 500 * Math.pow(2, failures)) * Math.random());
  }

  function take(answer, means) {
    var subscribed = answer.subscribed || [];
    var end = answer.disconnect;
    var index, data;
    for (index = 0; index < subscribed.length; index += 1) {
      if (subscribed[index].recovered === false) show("(Something may be missing here.)");
    }
    for (index = 0; index < answer.messages.length; index += 1) {
      data = answer.messages[index].data;
      show(data && typeof data.text === "string" ? data.text : JSON.stringify(data));
    }
    cursor = answer.cursor || cursor;
    session = answer.session || "";
    if (end && !end.reconnect) {
      say("Disconnected: " + end.reason);
    } else if (end) {
      pollLater();
    } else {
      failures = 0;
      say("Connected by " + means);
      poll();
    }
  }

  /** Returns true if the browser is to send the form. */
  function publish() {
    var form = find("say");
    var text = find("text").value;
    var data = JSON.stringify({ text: text });
    var url = SERVER + "/publish?topic=" + encodeURIComponent(TOPIC);
    var request = newRequest();
    if (!text) return false;
    find("text").value = "";
    if (!request) {
      form.action = url;
      find("data").value = "\"," + data.substring(1);
      return true;
    }
    ask(request, "POST", url, data, function (status) {
      if (status !== 200) show("(Not sent: " + text + ")");
    });
    return false;
  }

  find("say").onsubmit = publish;
  // A script that is asked for earlier is part of the page, which then looks as if it were loading.
  window.onload = function () {
    setTimeout(poll, 0);
  };
})();
