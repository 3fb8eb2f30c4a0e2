package sectigo

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/certctl/certctl/coordinator/connector"
)

// Collect implements connector.Connector. A format without the chain has the chain
// asked for.
func (s *Connector) Collect(ctx context.Context, _ *connector.Request, h connector.Handle) (*connector.Bundle, error) {
	if h.Order == "" {
		return nil, errNoOrder()
	}
	bundle, err := s.fetch(ctx, h.Order, s.config.Format)
	if err != nil || s.config.Format != "x509CO" && s.config.Format != "pemco" {
		return bundle, err
	}
	chain, err := s.fetch(ctx, h.Order, "x509IO")
	if err != nil {
		return nil, err
	}
	bundle.Certificates = append(bundle.Certificates, chain.Certificates...)
	return bundle, nil
}

func (s *Connector) fetch(ctx context.Context, id, format string) (*connector.Bundle, error) {
	call := connector.Call{Path: []string{"ssl", "v1", "collect", id}, Header: http.Header{"Accept": {"*/*"}}}
	if s.config.FormatInPath {
		call.Path = append(call.Path, format)
	} else {
		call.Query = url.Values{"format": {format}}
	}
	answer, err := s.do(ctx, call)
	if err != nil {
		if e := connector.Classify(err); e.Code == codeProcessing {
			e.Class = connector.ClassNotReady
		}
		return nil, err
	}
	return connector.ParseBundle(answer.Body) // an empty one is not ready
}

// Revoke implements connector.Revoker.
func (s *Connector) Revoke(ctx context.Context, c *connector.Revocation) (done bool, err error) {
	path := []string{"ssl", "v1", "revoke", c.Handle.Order}
	switch {
	case c.Serial != "" && (!s.config.RevokeByOrder || c.Handle.Order == ""):
		serial := strings.ToUpper(c.Serial)
		if len(serial)%2 != 0 {
			serial = "0" + serial
		}
		path = []string{"ssl", "v1", "revoke", "serial", serial}
	case c.Handle.Order == "":
		return false, errNoOrder()
	}
	code, reason := c.Reason, c.Comment
	if !reasons[code] {
		code = 0
	}
	if reason == "" {
		reason = "revoked by certctl"
	}
	_, err = s.do(ctx, connector.Call{
		Method: http.MethodPost, Path: path, Body: map[string]any{"reasonCode": code, "reason": connector.Detail(reason)},
	})
	if err != nil && connector.Classify(err).Code != codeRevokedAlready {
		return false, err
	}
	return true, nil
}

// CheckValidations has the authority look for what was published to prove control of
// the order's names. It looks by itself, too, but not at once.
func (s *Connector) CheckValidations(ctx context.Context, h connector.Handle) error {
	_, err := s.do(ctx, connector.Call{Method: http.MethodPost, Path: []string{"ssl", "v1", h.Order, "dcv", "recheck"}})
	return err
}

// Validations implements connector.Validator.
func (s *Connector) Validations(ctx context.Context, _ *connector.Request, h connector.Handle) ([]connector.Validation, error) {
	if h.Order == "" {
		return nil, errNoOrder()
	}
	answer, err := s.do(ctx, connector.Call{Path: []string{"ssl", "v1", h.Order, "dcv"}})
	if err != nil {
		return nil, err
	}
	var body struct {
		Log struct {
			Error struct {
				Description string `json:"description"`
			} `json:"error"`
			Log []struct {
				Status string `json:"dcvStatus"`
				Name   string `json:"domainName"`
				Last   string `json:"lastCheck"`
				Next   string `json:"nextCheck"`
			} `json:"log"`
		} `json:"dcvLog"`
		Instructions []instruction `json:"instructions"`
	}
	if err := answer.Decode(&body); err != nil {
		return nil, err
	}
	list := make([]connector.Validation, 0, len(body.Log.Log))
	for _, entry := range body.Log.Log {
		v := connector.Validation{
			Name: entry.Name, State: connector.Raw(entry.Status), Checked: readDate(entry.Last), Next: readDate(entry.Next), Method: s.config.DCVMode,
		}
		v.Done = strings.EqualFold(entry.Status, "Validated") || strings.EqualFold(entry.Status, "Valid")
		if !v.Done {
			v.Problem = connector.Detail(body.Log.Error.Description)
		}
		list = append(list, v)
	}
	for _, todo := range body.Instructions {
		at := slices.IndexFunc(list, func(v connector.Validation) bool { return strings.EqualFold(v.Name, todo.Name) })
		if at < 0 {
			list = append(list, connector.Validation{Name: todo.Name})
			at = len(list) - 1
		}
		if todo.Mode != "" {
			list[at].Method = connector.Raw(todo.Mode)
		}
		if !list[at].Done {
			list[at].Todo = todo.text()
		}
	}
	return list, nil
}

type instruction struct {
	Name  string `json:"domainName"`
	Mode  string `json:"dcvMode"`
	Host  string `json:"host"`
	Point string `json:"point"`
	URL   string `json:"url"`
	File  string `json:"file"`
	Email string `json:"dcvEmail"`
}

func (i instruction) text() string {
	switch {
	case i.Host != "" && i.Point != "":
		return connector.Detail(fmt.Sprintf("publish %s %s %s", i.Host, i.Mode, i.Point))
	case i.URL != "":
		return connector.Detail(fmt.Sprintf("serve %s with: %s", i.URL, i.File))
	case i.Email != "":
		return connector.Detail("answer the mail to " + i.Email)
	}
	return ""
}

// Test implements connector.Connector.
func (s *Connector) Test(ctx context.Context) (*connector.Account, error) {
	answer, err := s.do(ctx, connector.Call{
		Path: []string{"ssl", "v1", "types"}, Query: url.Values{"organizationId": {fmt.Sprint(s.config.Organization)}},
	})
	if err != nil {
		return nil, err
	}
	var types []struct {
		ID    int64  `json:"id"`
		Name  string `json:"name"`
		Terms []int  `json:"terms"`
	}
	if err := answer.Decode(&types); err != nil {
		return nil, err
	}
	account := &connector.Account{Name: s.config.CustomerURI + "/" + s.config.Login}
	if s.config.Auth == AuthOAuth {
		account.Name = s.config.ClientID
	}
	account.Facts = append(account.Facts, connector.Fact{Name: "profiles", Value: fmt.Sprint(len(types))})
	if s.Visible() < 0 {
		account.Warnings = append(account.Warnings, "no field of an order has a reference of ours: an order whose answer is lost waits for a person")
	}
	for _, profile := range types {
		if profile.ID != s.config.Profile {
			continue
		}
		account.Facts = append(account.Facts, connector.Fact{Name: "profile", Value: connector.Detail(profile.Name)}, connector.Fact{Name: "terms", Value: connector.Detail(fmt.Sprint(profile.Terms))})
		for _, term := range s.config.Terms {
			if !slices.Contains(profile.Terms, term) {
				account.Warnings = append(account.Warnings, fmt.Sprintf("the profile has no term of %d days", term))
			}
		}
		return account, nil
	}
	account.Warnings = append(account.Warnings, fmt.Sprintf("the organization %d has no profile %d for certificates of this kind", s.config.Organization, s.config.Profile))
	return account, nil
}
