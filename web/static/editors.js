// What each editor needs to be told to use this appliance. Pure: the texts, for an address and a model's name.

/** Editors with `where` the text belongs, the `text` itself, and `note` where there is more to do. */
export function editorSettings({ origin, protocol, host, port, path, model }) {
  return [
    {
      name: "llama.vim", where: "In your vimrc",
      text: `let g:llama_config = {'endpoint_fim': '${origin}infill', 'api_key': 'TOKEN'}`,
    },
    {
      name: "llama.vscode", where: "In VS Code’s settings.json",
      text: JSON.stringify({ "llama-vscode.endpoint": origin.replace(/\/$/, ""), "llama-vscode.api_key": "TOKEN" }, null, 2),
    },
    {
      name: "Continue", where: "In ~/.continue/config.yaml",
      text: `models:
  - name: Rockfill
    provider: ollama
    model: ${model}
    apiBase: ${origin}
    apiKey: TOKEN
    roles: [autocomplete]`,
    },
    {
      name: "Zed", where: "In settings.json; the token goes into ZED_OPEN_AI_COMPATIBLE_EDIT_PREDICTION_API_KEY",
      text: JSON.stringify({
        edit_predictions: {
          provider: "open_ai_compatible_api",
          open_ai_compatible_api: { api_url: `${origin}v1/completions`, model, prompt_format: "qwen", max_output_tokens: 64 },
        },
      }, null, 2),
    },
    {
      name: "Tabby", where: "In ~/.tabby-client/agent/config.toml, for its extensions in VS Code, JetBrains, Vim and others",
      text: `[server]
endpoint = "${origin.replace(/\/$/, "")}"
token = "TOKEN"`,
    },
    {
      name: "minuet", where: "In Neovim’s init.lua",
      text: `require('minuet').setup {
  provider = 'openai_fim_compatible',
  n_completions = 1,
  context_window = 2000,
  provider_options = {
    openai_fim_compatible = {
      name = 'Rockfill',
      end_point = '${origin}v1/completions',
      api_key = function() return 'TOKEN' end,
      model = '${model}',
      optional = { max_tokens = 56, rockfill = { mode = 'block' } },
    },
  },
}`,
    },
    {
      name: "twinny", where: "A provider of the type FIM, with any FIM template but “custom”",
      text: `Provider: ollama
Protocol: ${protocol}
Hostname: ${host}
Port: ${port}
Path: ${path}api/generate
Model: ${model}
API key: TOKEN`,
    },
    {
      name: "Another one", where: "By the server that it knows",
      text: `llama.cpp          ${origin.replace(/\/$/, "")}
Ollama             ${origin.replace(/\/$/, "")}
OpenAI-compatible  ${origin}v1`,
    },
  ];
}

/** Scripts and automations, likewise. */
export function automationSettings({ origin }) {
  const socket = `${origin.replace(/^http/, "ws")}ws`;
  return [
    {
      name: "Shell", where: "What runs, and how fast",
      text: `curl -sS -X POST -H "Authorization: Bearer $ROCKFILL_TOKEN" ${origin}api/command/engine.get`,
    },
    {
      name: "Home Assistant", where: "In configuration.yaml; the token in secrets.yaml as rockfill: Bearer TOKEN",
      text: `rest:
  - resource: ${origin}api/stats
    scan_interval: 30
    headers: { Authorization: !secret rockfill }
    sensor:
      - name: NPU temperature
        unique_id: rockfill_npu_temperature
        device_class: temperature
        unit_of_measurement: °C
        value_template: "{{ value_json.figures['npu.temp_celsius'] }}"

rest_command:
  rockfill_pause:
    url: ${origin}api/command/engine.pause
    method: post
    headers: { Authorization: !secret rockfill }
  rockfill_resume:
    url: ${origin}api/command/engine.resume
    method: post
    headers: { Authorization: !secret rockfill }`,
    },
    {
      name: "Websocket", where: "Node-RED, or anything else: connect, then send",
      text: `${socket}
{"type": "auth", "token": "TOKEN"}
{"id": 1, "type": "subscribe", "topics": ["events", "stats"], "interval_s": 10}`,
    },
    {
      name: "Prometheus", where: "In prometheus.yml",
      text: `scrape_configs:
  - job_name: rockfill
    authorization: { credentials: TOKEN }
    static_configs:
      - targets: ["${new URL(origin).host}"]`,
    },
  ];
}
