package service

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestZeroLifecycleTellsNobody(t *testing.T) {
	var life Lifecycle
	life.Ready()
	life.Status("something")
	life.Failed(errors.New("something"))
	life.Watch(func(context.Context) error { return nil })
	select {
	case <-life.Reload():
		t.Error("asked to reload")
	default:
	}
}

func TestReloadsThatWaitAreOne(t *testing.T) {
	s := newSession(unmanaged{})
	life := Lifecycle{s: s}
	assert.False(t, s.requestReload(), "nobody listens yet")
	reload := life.Reload()
	assert.Equal(t, reload, life.Reload(), "asking twice is as good")
	assert.True(t, s.requestReload())
	assert.True(t, s.requestReload())
	<-reload
	select {
	case <-reload:
		t.Error("two requests that waited were not merged")
	default:
	}
	assert.True(t, s.requestReload())
	<-reload
}
