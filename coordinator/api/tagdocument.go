package api

import (
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// describeTags adds to every operation with entity tags what a client can do with them.
func describeTags(document *huma.OpenAPI) {
	text := &huma.Schema{Type: huma.TypeString}
	tag := &huma.Param{
		Description: "Strong entity tag of the answer (RFC 9110, section 8.8.3): as long as it is the same, on whichever node, the answer is the same to the octet.",
		Schema:      text,
	}
	for _, path := range document.Paths {
		op := path.Get
		if op == nil || sourceOf(op) == nil {
			continue
		}
		whole := op.Responses[strconv.Itoa(http.StatusOK)]
		whole.Headers["ETag"] = tag
		unchanged := &huma.Response{
			Description: "Not Modified: If-None-Match has the entity tag of the answer.",
			Headers:     map[string]*huma.Param{"ETag": tag},
		}
		for name, header := range whole.Headers {
			unchanged.Headers[name] = header
		}
		op.Responses[strconv.Itoa(http.StatusNotModified)] = unchanged
		op.Responses[strconv.Itoa(http.StatusPreconditionFailed)] = &huma.Response{
			Description: "Precondition Failed: If-Match has another entity tag.", Content: op.Responses["default"].Content,
		}
		op.Parameters = append(op.Parameters, &huma.Param{
			Name: "If-None-Match", In: "header", Schema: text,
			Description: "Answer only if the entity tag is none of these, and else with 304 and no body, which costs the coordinator next to nothing.",
		}, &huma.Param{
			Name: "If-Match", In: "header", Schema: text,
			Description: "Answer only if the entity tag is one of these, and else with 412: for who continues what an earlier answer began.",
		})
	}
}
