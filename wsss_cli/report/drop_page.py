"""The page of `wsss serve`: drop a photograph, see its mask. It asks nothing of other servers."""

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>wsss</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 60rem; margin: 0 auto; padding: 1rem; }
label { display: block; border: 2px dashed #767676; border-radius: 8px; padding: 2rem; text-align: center; }
label.over, label:focus-within { border-color: #0072b2; background: #eef6fb; }
input { display: block; margin: 1rem auto 0; max-width: 100%; }
img { max-width: 100%; height: auto; border-radius: 4px; }
#result { display: none; margin-top: 1rem; }
ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; }
li span { display: inline-block; width: 1em; height: 1em; margin-right: .4em; border: 1px solid #767676; }
#said { min-height: 1.5em; }
#said.error { color: #a30000; }
</style>
<h1>Segment a photograph</h1>
<p id="about"></p>
<label id="drop">Drop a photograph here, or choose one<input id="file" type="file" accept="image/*"></label>
<p id="said" role="status"></p>
<div id="result">
<img id="overlay" alt="The photograph with its mask over it">
<ul id="classes"></ul>
<p><a id="mask" download="mask.png">Download the mask</a> (PNG, class numbers with colours)</p>
</div>
<script>
const at = id => document.getElementById(id);
const say = (text, wrong) => { at("said").textContent = text; at("said").className = wrong ? "error" : ""; };
fetch("health").then(r => r.json()).then(about => {
  const limit = "Files of up to " + about.megabytes + " MB.";
  at("about").textContent = about.network + ": " + about.classes.join(", ") + ". " + limit;
});
async function send(file) {
  if (!file) return;
  at("result").style.display = "none";
  say("Segmenting " + file.name + " ...");
  try {
    const answer = await fetch("predict", { method: "POST", body: file });
    const data = await answer.json();
    if (!answer.ok) { say(data.error + ": " + data.hint, true); return; }
    at("overlay").src = data.overlay;
    at("mask").href = data.mask;
    at("classes").replaceChildren(...data.classes.map(one => {
      const item = document.createElement("li"), box = document.createElement("span");
      box.style.background = "rgb(" + one.color.join(",") + ")";
      item.append(box, one.name + " " + (100 * one.share).toFixed(1) + " %");
      return item;
    }));
    at("result").style.display = "block";
    say(data.width + " x " + data.height + " pixels, " + data.seconds + " s");
  } catch (error) { say("The server does not answer: " + error.message, true); }
}
at("file").addEventListener("change", event => send(event.target.files[0]));
for (const name of ["dragover", "dragleave", "drop"]) document.addEventListener(name, event => {
  event.preventDefault();
  at("drop").classList.toggle("over", name === "dragover");
  if (name === "drop") send(event.dataTransfer.files[0]);
});
</script>
</html>
"""
