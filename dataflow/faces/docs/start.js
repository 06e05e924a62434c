// The address is relative: nobody knows where the daemon is mounted. No validator elsewhere is asked.
"use strict";
SwaggerUIBundle({
  url: "v1/swagger.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
