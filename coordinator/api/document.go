package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

const bearerScheme = "api_token"

// newDocument is the OpenAPI document before the operations are added.
func newDocument() *huma.OpenAPI {
	return &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title:   "certctl coordinator",
			Version: "1",
			Description: "What a certctl coordinator knows about its fleet, and what people may change.\n\n" +
				"Lists are paged: follow next_cursor until it is absent. Errors are problem documents (RFC 9457) with a stable code. " +
				"Clients must ignore fields that they do not know.",
			License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
		},
		Components: &huma.Components{
			Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
			SecuritySchemes: map[string]*huma.SecurityScheme{
				bearerScheme: {
					Type: "http", Scheme: "bearer", BearerFormat: "cta1.<id>.<secret>",
					Description: "An API token with a role: viewer, operator or admin, each of which may do what the one before may.",
				},
			},
		},
		Tags: []*huma.Tag{
			{Name: "status", Description: "The coordinator, and who the token belongs to."},
			{Name: "agents", Description: "Enrolled hosts."},
			{Name: "certificates", Description: "Managed certificates as the agents report them."},
			{Name: "assignments", Description: "Certificates that are defined centrally, for the hosts that a label selector matches."},
			{Name: "renewals", Description: "Renewals and revocations that somebody asks for."},
			{Name: "orders", Description: "Orders at authorities that take their time, and what a person has to do about them."},
			{Name: "issuers", Description: "Accounts at authorities, and how they stand."},
			{Name: "reports", Description: "How the fleet stands, in sums and host by host."},
			{Name: "jobs", Description: "What is under way, in one list."},
			{Name: "enrollment tokens", Description: "With which hosts enrol."},
			{Name: "API tokens", Description: "With which people and programs use this API."},
			{Name: "CA", Description: "The built-in certificate authority and its rotation."},
			{Name: "cluster", Description: "The nodes that keep all of this, and how they stand."},
			{Name: "audit", Description: "The journal."},
		},
	}
}

// OpenAPI is the API's OpenAPI 3.1 document as indented JSON, the same for
// every coordinator of this version.
func OpenAPI() ([]byte, error) {
	s := &server{}
	document, err := json.MarshalIndent(s.register(http.NewServeMux()).OpenAPI(), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the OpenAPI document: %w", err)
	}
	return append(document, '\n'), nil
}

// extensible takes "no more fields than these" from the schemas of answers:
// clients ignore what they do not know, so that fields can be added. Requests
// stay closed, so that a misspelt field is an error.
func extensible(document *huma.OpenAPI) {
	requests := map[string]bool{}
	for _, path := range document.Paths {
		for _, op := range []*huma.Operation{path.Get, path.Post, path.Put, path.Delete} {
			if op == nil || op.RequestBody == nil {
				continue
			}
			for _, media := range op.RequestBody.Content {
				requests[media.Schema.Ref[strings.LastIndex(media.Schema.Ref, "/")+1:]] = true
			}
		}
	}
	for name, schema := range document.Components.Schemas.Map() {
		if closed, ok := schema.AdditionalProperties.(bool); ok && !closed && !requests[name] {
			schema.AdditionalProperties = nil
		}
	}
}

// serveDocument serves the document, which nobody needs a token for.
func serveDocument(mux *http.ServeMux, document *huma.OpenAPI) error {
	asJSON, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("encode the OpenAPI document: %w", err)
	}
	asYAML, err := document.YAML()
	if err != nil {
		return fmt.Errorf("encode the OpenAPI document: %w", err)
	}
	serve := func(path, contentType string, body []byte) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			_, _ = w.Write(body) // a client that has gone does not want it
		})
	}
	serve("/openapi.json", "application/vnd.oai.openapi+json", asJSON)
	serve("/openapi.yaml", "application/vnd.oai.openapi", asYAML)
	return nil
}
