// A page to try the API: Swagger UI with this worker's own description, and nothing from elsewhere.

const token = sessionStorage.getItem("token");
const dark = (localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
document.documentElement.classList.toggle("dark-mode", dark);

window.SwaggerUIBundle({
  url: "../v1/openapi.json", dom_id: "#api", validatorUrl: null, layout: "BaseLayout", docExpansion: "list",
  defaultModelsExpandDepth: -1, tryItOutEnabled: true, syntaxHighlight: { activated: false },
  requestInterceptor: (request) => {
    if (token && !request.headers.Authorization) request.headers.Authorization = `Bearer ${token}`;
    return request;
  },
});
