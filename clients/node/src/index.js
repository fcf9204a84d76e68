// index.js: what `import ... from 'pg-uncache'` gives.
export { Fence } from './fence.js'
export { request } from './request.js'
