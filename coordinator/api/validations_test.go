package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/orders"
	"github.com/certctl/certctl/shared/wire"
)

// someOrders answers what a test makes up.
type someOrders struct {
	list  []connector.Validation
	err   error
	asked []string
	woken atomic.Int32
	// revoked is the answer to a revocation.
	revoked bool
}

func (s *someOrders) Validations(ctx context.Context, agent, id string) ([]connector.Validation, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		return nil, errors.New("the question is not bounded")
	}
	s.asked = append(s.asked, agent+"/"+id)
	return s.list, s.err
}

func (s *someOrders) Revoke(ctx context.Context, v orders.Revocation) (bool, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		return false, errors.New("the question is not bounded")
	}
	s.asked = append(s.asked, fmt.Sprintf("revoke %s/%s for %d", v.Agent, v.Order, v.Reason))
	return s.revoked, s.err
}

func (s *someOrders) Wake() { s.woken.Add(1) }

func TestTheAuthorityIsAskedWhatIsLeftToProve(t *testing.T) {
	w := start(t)
	web := w.Agent("web1", "web1.example.com", nil)
	web.AtEveryStage()
	path := orderPath("web1", fleet.StageNeedsPerson) + "/validations"
	assert.Contains(t, w.ask(http.MethodGet, path, nil).problem(t, http.StatusConflict, wire.CodeConflict).Detail, "has no issuer ov in its settings")
	at := time.Date(2031, 1, 2, 3, 4, 5, 0, time.UTC)
	engine := &someOrders{list: []connector.Validation{
		{Name: "www.example.com", Method: "dns-txt", State: "pending", Todo: "publish the token abc", Checked: at, Next: at.Add(time.Hour), Problem: "no record"},
		{Name: "api.example.com", State: "valid", Done: true, Expires: at},
	}}
	w.UseOrders(engine)
	assert.Equal(t, resource.Validations{Items: []resource.Validation{
		{Name: "www.example.com", Method: "dns-txt", State: "pending", Todo: "publish the token abc", Checked: at, Next: at.Add(time.Hour), Problem: "no record"},
		{Name: "api.example.com", State: "valid", Done: true, Expires: at},
	}}, get[resource.Validations](w, path))
	require.Equal(t, []string{"web1/" + get[resource.Order](w, orderPath("web1", fleet.StageNeedsPerson)).ID}, engine.asked)

	// That the authority does not answer is no error of the request.
	engine.list, engine.err = nil, &connector.Error{Class: connector.ClassCredentials, Status: 401, Detail: "the key is not good", Mend: "mend the key"}
	told := get[resource.Validations](w, path)
	assert.Empty(t, told.Items)
	assert.Contains(t, told.Error, "the key is not good")
	assert.NotContains(t, told.Error, "mend the key", "once is enough")
	assert.Equal(t, "mend the key", told.Mend)
	for _, c := range []struct {
		err  error
		text string
	}{
		{orders.ErrUnsupported, "the authority of ov does not tell what is left to prove"},
		{orders.ErrUnknownOrder, "the authority does not have the order yet"},
		{orders.ErrUnknownIssuer, "has no issuer ov in its settings"},
	} {
		engine.err = fmt.Errorf("wrapped: %w", c.err)
		assert.Contains(t, w.ask(http.MethodGet, path, nil).problem(t, http.StatusConflict, wire.CodeConflict).Detail, c.text)
	}
	w.ask(http.MethodGet, ordersPath+"/web1/none/validations", nil).problem(t, http.StatusNotFound, wire.CodeNotFound)

	// What is changed is looked at at once.
	require.Zero(t, engine.woken.Load())
	post[resource.Order](w, orderPath("web1", fleet.StagePending)+"/retry", nil, http.StatusAccepted)
	assert.EqualValues(t, 1, engine.woken.Load())
}
